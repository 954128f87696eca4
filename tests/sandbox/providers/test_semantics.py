"""What the engine relies on, the same for every provider, asked over its protocol without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from sandbox.engine.environment import Endpoints
from sandbox.providers.aws import provider as aws
from sandbox.providers.base import Provider
from sandbox.providers.gcp import provider as gcp
from sandbox.providers.random.generated import TYPES as RANDOM_TYPES
from sandbox.providers.values import UNKNOWN, Properties, encode
from tests.sandbox.providers.direct import Direct, Refused, served
from tests.sandbox.providers.examples import Example


@dataclass(frozen=True)
class Inputs:
    """One type's inputs, and what is expected of them; see :class:`Example` for the names."""

    make: Callable[[], Provider]
    token: str
    config: Properties
    create: Properties
    update: Properties | None
    updated: dict[str, str]
    replace: Properties
    replaced: dict[str, str]
    wrong: Properties
    physical_name: str
    unknown: tuple[str, ...]
    secret: tuple[str, Properties, str]


_REGION, _PROJECT = {"region": "eu-central-1"}, {"project": "trial-project", "region": "europe-west1"}
INPUTS = {
    "aws": Inputs(
        make=aws.make,
        token="aws:s3/bucket:Bucket",
        config=_REGION,
        create={"tags": {"owner": "data"}},
        update={"tags": {"owner": "platform"}},
        updated={"tags.owner": "update"},
        replace={"tags": {"owner": "data"}, "objectLockEnabled": True},
        replaced={"objectLockEnabled": "add-replace"},
        wrong={"tags": {"owner": 7}, "logging": {"target": "x"}, "forceDestroi": True},
        physical_name="bucket",
        unknown=("arn", "bucketDomainName"),
        secret=(
            "aws:secretsmanager/secretVersion:SecretVersion",
            {"secretId": "word", "secretString": "correct horse"},
            "secretString",
        ),
    ),
    "gcp": Inputs(
        make=gcp.make,
        token="gcp:storage/bucket:Bucket",
        config=_PROJECT,
        create={"location": "US", "labels": {"owner": "data"}},
        update={"location": "US", "labels": {"owner": "platform"}},
        updated={"labels.owner": "update"},
        replace={"location": "EU"},
        replaced={"location": "update-replace", "labels": "delete"},
        wrong={
            "location": 4,
            "lifecycleRules": [{"action": {"typ": "Delete"}, "condition": {}}],
            "retention": 4,
        },
        physical_name="name",
        unknown=("selfLink", "url"),
        secret=("", {}, ""),
    ),
    "random": Inputs(
        make=lambda: Provider("random", version("pulumi-random"), RANDOM_TYPES),
        token="random:index/randomString:RandomString",
        config={},
        create={"length": 12},
        update=None,
        updated={},
        replace={"length": 13},
        replaced={"length": "update-replace"},
        wrong={"length": "long", "keepers": {"a": 1}, "lowr": True},
        physical_name="result",
        unknown=("result",),
        secret=("random:index/randomPassword:RandomPassword", {"length": 20}, "result"),
    ),
}


@pytest.fixture
def inputs(example: Example) -> Inputs:
    return INPUTS[example.head.rpartition(" ")[2]]


@pytest.fixture
def one(
    inputs: Inputs, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Direct]:
    """The resource "one" of the provider."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(endpoints.aws))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", str(endpoints.gcs))
    monkeypatch.setenv("KILO_RECORDS", str(tmp_path))
    with served(inputs.make(), inputs.token, inputs.config) as direct:
        yield direct


def test_lives_through_create_update_replace_and_delete(
    one: Direct, inputs: Inputs, example: Example
) -> None:
    checked = one.check(inputs.create)
    resource_id, outputs = one.create(checked)
    name = outputs[inputs.physical_name]
    assert _exists(example, name)
    again = one.check(inputs.create, checked)
    assert one.diff(checked, again) == {}

    if inputs.update is not None:
        changed = one.check(inputs.update, checked)
        assert one.diff(checked, changed) == inputs.updated
        outputs = one.update(resource_id, outputs, changed)
        assert outputs[inputs.physical_name] == name, "a generated name stays"
        checked = changed
        found = one.read(resource_id, outputs, checked)
        assert found is not None
        assert one.diff(found[1], checked) == {}
        outputs = one.update(resource_id, outputs, one.check(inputs.create, checked))
        checked = one.check(inputs.create, checked)

    wanted = one.check(inputs.replace, checked)
    assert one.diff(checked, wanted) == inputs.replaced
    # The engine asks for a new name by leaving the old inputs out.
    fresh = one.check(inputs.replace)
    fresh[_named(inputs, fresh)] = f"{name}-renewed" if _named(inputs, fresh) in fresh else None
    renewed_id, renewed = one.create({key: value for key, value in fresh.items() if value is not None})
    assert renewed[inputs.physical_name] != name
    one.delete(resource_id, outputs)
    assert not _exists(example, name, otherwise=False)
    assert _exists(example, renewed[inputs.physical_name])
    one.delete(renewed_id, renewed)
    assert not _exists(example, renewed[inputs.physical_name], otherwise=False)
    one.delete(renewed_id, renewed)  # What is gone already is no error.


def test_a_preview_touches_nothing_and_knows_no_more_than_it_can(
    one: Direct, inputs: Inputs, example: Example
) -> None:
    checked = one.check(inputs.create)
    resource_id, outputs = one.create(checked, preview=True)
    assert resource_id == ""
    for key in inputs.unknown:
        assert outputs[key] is UNKNOWN, key
    for key, value in inputs.create.items():
        assert outputs[key] == value
    name = checked.get(inputs.physical_name)
    assert name is None or not _exists(example, name, otherwise=False)

    resource_id, outputs = one.create(checked)
    if inputs.update is not None:
        before = one.read(resource_id, outputs, checked)
        one.update(resource_id, outputs, one.check(inputs.update, checked), preview=True)
        assert one.read(resource_id, outputs, checked) == before
    one.delete(resource_id, outputs)


def test_an_input_that_only_an_update_knows_passes(one: Direct, inputs: Inputs) -> None:
    unknown = one.check({**inputs.create, next(iter(inputs.create)): UNKNOWN})
    assert unknown[next(iter(inputs.create))] is UNKNOWN


def test_what_is_wrong_is_said_with_its_path_all_at_once(
    one: Direct, inputs: Inputs, example: Example
) -> None:
    with pytest.raises(Refused) as refused:
        one.check(inputs.wrong)
    for path in example.wrong_paths:
        assert f"{path}: " in str(refused.value)


def test_an_unknown_type_is_an_error(one: Direct, example: Example) -> None:
    for token, words in (
        (example.unknown_type, ("has no such resource type",)),
        (example.missing_type, ("the sandbox's", "sandbox/providers/")),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            one.other(token).check({})
        for said in words:
            assert said in str(refused.value)


def test_what_is_secret_without_a_secret_input_is_marked(one: Direct, inputs: Inputs) -> None:
    token, given, output = inputs.secret
    if not token:
        pytest.skip("nothing of this provider makes a secret of its own")
    if inputs.token.startswith("aws:"):
        one.other("aws:secretsmanager/secret:Secret").create({"name": "word", "recoveryWindowInDays": 0})
    other = one.other(token)
    answer = one.stub.Create(provider_pb2.CreateRequest(urn=other.urn, properties=encode(other.check(given))))
    sealed = answer.properties.fields[output].struct_value.fields
    assert "value" in sealed
    assert len(sealed) == 2


def test_drift_is_read_and_an_update_mends_it(one: Direct, inputs: Inputs, example: Example) -> None:
    if example.drift is None:
        pytest.skip("nothing lies outside the state")
    checked = one.check(inputs.create)
    resource_id, outputs = one.create(checked)
    example.drift(outputs[inputs.physical_name])
    found = one.read(resource_id, outputs, checked)
    assert found is not None
    assert list(one.diff(found[1], checked)) == [example.drifted]
    mended = one.update(resource_id, found[0], checked)
    again = one.read(resource_id, mended, checked)
    assert again is not None
    assert one.diff(again[1], checked) == {}
    one.delete(resource_id, mended)


def test_what_was_deleted_behind_the_engines_back_is_told(
    one: Direct, inputs: Inputs, example: Example
) -> None:
    if example.remove is None:
        pytest.skip("nothing lies outside the state")
    checked = one.check(inputs.create)
    resource_id, outputs = one.create(checked)
    example.remove(outputs[inputs.physical_name])
    assert one.read(resource_id, outputs, checked) is None
    one.delete(resource_id, outputs)


def test_what_was_made_by_hand_is_read_by_its_id_alone(one: Direct, inputs: Inputs) -> None:
    checked = one.check(inputs.create)
    resource_id, outputs = one.create(checked)
    found = one.read(resource_id, {}, {})
    assert found is not None
    live, read = found
    assert live[inputs.physical_name] == outputs[inputs.physical_name]
    assert {key: read[key] for key in inputs.create} == inputs.create
    one.delete(resource_id, outputs)


def _named(inputs: Inputs, checked: Properties) -> str:
    """The input that holds the physical name, where the type has one."""
    return inputs.physical_name if inputs.physical_name in checked else ""


def _exists(example: Example, name: Any, *, otherwise: bool = True) -> bool:
    return example.exists(name) if example.exists else otherwise
