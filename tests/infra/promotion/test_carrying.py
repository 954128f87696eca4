"""Promotions through an engine and a real database: what is refused, and what two do at once."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.promotion.lead import leading
from infra.promotion.ports import StagePorts
from infra.promotion.stage_file import PromotionFile
from infra.promotion.table import carried
from infra.promotion.undeployed import refuse_other_program, refuse_undeployed
from kilo.contract import StackOutputs
from kilo.engine import EngineSession, HalfDeployed, Locked, NotDeployed
from kilo.errors import CheckFailed, Unreachable
from kilo.promotion.record import Journal
from tests.events import make_outputs
from tests.infra.ramps.test_publish import git
from tests.noting_engine import calls, noting_engine

ROOT = Path(__file__).parents[3]
UPDATES = {"resourcePlans": {"a": {"steps": ["update"]}}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path)
    return noting_engine(tmp_path, monkeypatch, state={"deployment": {}}, plan=UPDATES)


@pytest.fixture
def ports(project: Path, database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield StagePorts(
            PromotionFile(project / "Pulumi.dev.yaml"),
            EngineSession("dev", project),
            make_outputs(keys={}),
            Journal(connection, "dev", ""),
            database_url,
            "ana",
        )


def test_a_file_is_carried_out_by_a_plan(project: Path, ports: StagePorts) -> None:
    done = ports.deploy()
    assert calls(project) == ["stack", "preview", "stack", "up"]
    assert (done["changed"], len(done["plan"]), len(done["state"])) == (1, 64, 64)
    (project / "plan").write_text(json.dumps({"resourcePlans": {"a": {"steps": ["same"]}}}))
    assert ports.deploy()["changed"] == 0
    assert calls(project).count("up") == 1


def test_a_plan_older_than_the_state_is_refused(project: Path, ports: StagePorts) -> None:
    (project / "moves").touch()
    with pytest.raises(NotDeployed, match="the plan is older than the state"):
        ports.deploy()
    assert "up" not in calls(project)


def test_an_engine_that_is_locked_has_done_nothing_and_one_that_failed_may_have(
    project: Path, ports: StagePorts
) -> None:
    (project / "locked").touch()
    with pytest.raises(Locked, match="another deployment has locked the state"):
        ports.deploy()
    (project / "locked").rename(project / "broken")
    with pytest.raises(HalfDeployed, match="a pod does not start"):
        ports.deploy()


def test_rotations_under_way_hold_the_roll_back_of_their_row(
    project: Path, ports: StagePorts, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state)"
            " VALUES (%s, 'acme', '{}', 'ana', 'running')",
            ("d" * 64,),
        )
    ports.rekey_back()
    action = "{ setting: tiers.gold.encrypted_fields, on: [email], off: [] }"
    with (project / "Pulumi.dev.yaml").open("a") as file:
        file.write(f"  kilo:promotion: {{ actions: [{action}] }}\n")
    ports.file.reread()
    with pytest.raises(CheckFailed, match=r"rotations are under way \(acme: dddddddddddd\)"):
        ports.rekey_back()


def test_two_at_once_are_one(database_url: str) -> None:
    begun, over = threading.Event(), threading.Event()
    with pytest.raises(Unreachable, match="kilo db migrate"), leading(database_url, "none", "dev", "ana", ""):
        pytest.fail("there is no lease")

    def lead() -> None:
        with leading(database_url, "public", "dev", "ana, process 1", "") as journal:
            journal.held()
            begun.set()
            over.wait(60)

    first = threading.Thread(target=lead)
    first.start()
    assert begun.wait(60)
    with (
        pytest.raises(CheckFailed, match="ana, process 1 leads a promotion to dev at this moment"),
        leading(database_url, "public", "dev", "bo, process 2", ""),
    ):
        pytest.fail("both lead")
    # Another stage is another matter.
    with leading(database_url, "public", "stage", "bo, process 2", "") as other:
        other.held()
    over.set()
    first.join()
    with leading(database_url, "public", "dev", "bo, process 2", "") as second:
        second.held()


HISTORY = [{"kind": "update", "result": "succeeded", "config": {"kilo:outbox": {"value": '{"workers":1}'}}}]


@pytest.mark.parametrize(
    ("history", "config", "said"),
    [
        (HISTORY, {"kilo:outbox": {"value": '{"workers": 2}'}}, "kilo:outbox is not what was deployed"),
        (
            HISTORY,
            {"kilo:outbox": {"value": '{"workers": 1}'}, "kilo:bus": {"value": "{}"}},
            "kilo:bus is not",
        ),
        ([], {}, "dev was never deployed"),
        ([{"kind": "update", "result": "failed"}], {}, "dev's last deployment failed"),
    ],
)
def test_what_was_never_deployed_does_not_ride_along(
    project: Path, history: list[dict[str, Any]], config: dict[str, Any], said: str
) -> None:
    (project / "config").write_text(json.dumps(config))
    with pytest.raises(CheckFailed, match=said):
        refuse_undeployed(EngineSession("dev", project), history)


def test_what_was_deployed_last_is_fine_however_it_is_written(project: Path) -> None:
    (project / "config").write_text(json.dumps({"kilo:outbox": {"value": '{ "workers": 1 }'}}))
    refuse_undeployed(EngineSession("dev", project), [{"kind": "refresh"}, *HISTORY])


def test_another_program_than_the_release_is_refused(project: Path) -> None:
    (project / "infra").mkdir()
    (project / "infra" / "a.py").write_text("one = 1\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, *identity, "commit", "--quiet", "-m", "first")
    commit = git(project, "rev-parse", "HEAD").strip()
    (project / "Pulumi.dev.yaml").write_text("other: 1\n")
    refuse_other_program(project, commit)
    (project / "infra" / "a.py").write_text("one = 2\n")
    with pytest.raises(CheckFailed, match=r"infra/a\.py is not as in the release's commit"):
        refuse_other_program(project, commit)
    for unknown in ("", "e" * 40):
        with pytest.raises(CheckFailed, match="does not know the release's commit"):
            refuse_other_program(project, unknown)


def outputs(url: str) -> StackOutputs:
    made = make_outputs(keys={})
    primary = made.registries.primary.model_copy(update={"url": url})
    return made.model_copy(update={"registries": made.registries.model_copy(update={"primary": primary})})


def test_what_is_carried_over_is_digests(project: Path) -> None:
    settings = PromotionFile(project / "Pulumi.dev.yaml").settings
    running = {str(getattr(settings.images, name)): f"sha256:{'a' * 64}" for name in ("runtime", "nats")}
    there, here = outputs("one.test/kilo"), outputs("two.test/kilo")
    assert carried(settings, running, there, here) == {
        "images.runtime": f"ghcr.io/kilo-platform/kilo@sha256:{'a' * 64}",
        "images.nats": f"docker.io/library/nats@sha256:{'a' * 64}",
    }
    with pytest.raises(CheckFailed, match="which is not what runs in dev"):
        carried(settings, {"ghcr.io/kilo-platform/kilo:0.2.0": None}, there, here)


def test_a_digest_that_the_other_registry_does_not_have_is_refused(project: Path) -> None:
    with (project / "Pulumi.dev.yaml").open() as file:
        text = file.read().replace("ghcr.io/kilo-platform/kilo:0.1.0", "127.0.0.1:9/kilo/kilo:0.1.0")
    (project / "Pulumi.dev.yaml").write_text(text)
    settings = PromotionFile(project / "Pulumi.dev.yaml").settings
    running = {"127.0.0.1:9/kilo/kilo:0.1.0": f"sha256:{'a' * 64}"}
    with pytest.raises(CheckFailed, match="does not say whether it has it"):
        carried(settings, running, outputs("127.0.0.1:9/kilo"), outputs("127.0.0.1:9/other"))
