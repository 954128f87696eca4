"""Objects on disk, and server-side apply over them."""

from __future__ import annotations

from pathlib import Path

from sandbox.cluster.addresses import Addresses
from sandbox.cluster.objects import Key, Object, key_of
from sandbox.cluster.resources import Resources
from sandbox.cluster.schemas import Schemas
from sandbox.cluster.store import Store
from tests.sandbox.cluster.support import NAMESPACE, deployment, named, server


def resources_of(directory: Path) -> Resources:
    made = Resources(Store(directory / "objects"), Schemas(), Addresses(directory / "addresses.json"))
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, manager="test")
    return made


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored = store.put(named("ConfigMap", "c.status", data={"a": "1"}))
    store.put_status(key_of(stored), {"seen": True})
    again = Store(tmp_path).get(key_of(stored))
    assert again is not None
    assert (again["data"], again["status"]) == ({"a": "1"}, {"seen": True})
    assert again["metadata"]["uid"] == stored["metadata"]["uid"]


def test_a_write_that_was_cut_short_leaves_the_old_object(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored = store.put(named("ConfigMap", "c", data={"a": "1"}))
    file = next(tmp_path.rglob("c.json"))
    file.with_name(".c.json").write_text('{"apiVersion": "v1", "ki')
    (file.parent / "c.status").write_text('{"half')
    assert Store(tmp_path).get(key_of(stored)) == {**stored, "status": {}}


def test_versions_rise_over_restarts_and_the_generation_with_the_specification_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.put(named("ConfigMap", "c", data={"a": "1"}))
    labelled = store.put({**first, "metadata": {**first["metadata"], "labels": {"a": "b"}}})
    store.put_status(key_of(first), {"seen": 1})
    changed = Store(tmp_path).put({**labelled, "data": {"a": "2"}})
    assert [obj["metadata"]["generation"] for obj in (first, labelled, changed)] == [1, 1, 2]
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in (first, labelled, changed)]
    assert versions == sorted(set(versions))


def test_files_are_for_the_user_alone(tmp_path: Path) -> None:
    Store(tmp_path).put(named("Secret", "s", data={"a": "eA=="}))
    assert next(tmp_path.rglob("s.json")).stat().st_mode & 0o077 == 0


def test_applying_removes_what_the_manager_no_longer_sets_and_keeps_what_others_set(tmp_path: Path) -> None:
    resources = resources_of(tmp_path)
    resources.apply(named("ConfigMap", "c", data={"mine": "1", "gone": "1"}), manager="pulumi")
    resources.apply(named("ConfigMap", "c", data={"theirs": "1"}), manager="kubectl")
    resources.apply(named("ConfigMap", "c", data={"mine": "2"}), manager="pulumi")
    found = resources.get(Key("v1", "ConfigMap", NAMESPACE, "c"))
    assert found["data"] == {"mine": "2", "theirs": "1"}


def test_a_field_that_both_set_is_the_later_ones(tmp_path: Path) -> None:
    resources = resources_of(tmp_path)
    made = deployment("web", server())
    resources.apply(made, manager="pulumi")
    drifted = named("Deployment", "web", spec={**made["spec"], "replicas": 5})
    resources.apply(drifted, manager="kubectl")
    assert resources.apply(made, manager="pulumi")["spec"]["replicas"] == 1


def test_a_dry_run_answers_as_the_real_one_and_stores_nothing(tmp_path: Path) -> None:
    resources = resources_of(tmp_path)
    before = resources.store.all_keys()
    dry = resources.apply(named("Secret", "s", stringData={"a": "x"}), manager="pulumi", dry_run=True)
    assert dry["data"] == {"a": "eA=="}
    assert resources.store.all_keys() == before


def test_a_service_keeps_its_address(tmp_path: Path) -> None:
    resources = resources_of(tmp_path)
    service: Object = named("Service", "web", spec={"selector": {"a": "b"}, "ports": [{"port": 80}]})
    first = resources.apply(service, manager="pulumi")["spec"]["clusterIP"]
    resources.delete(Key("v1", "Service", NAMESPACE, "web"))
    assert resources.apply(service, manager="pulumi")["spec"]["clusterIP"] == first
