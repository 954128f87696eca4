"""The way back of keys in a rehearsal: forward, back, read under the older key; again in any state."""

from __future__ import annotations

import pytest

from infra.promotion.rekey import Rekey
from kilo.errors import BadInput, CheckFailed
from kilo.fle.formats import inspect
from kilo.fle.rotation.steps import Rotations
from tests.runtime.fle.conftest import PEOPLE, Stage, aws, moto_url, stage
from tests.runtime.fle.test_rotation import approve, approved, fill, read_all, rotations

__all__ = ["aws", "moto_url", "rotations", "stage"]

WHO = "requester"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilo.fle.rotation.plan.LEAST_SETTLE_SECONDS", 0)


def rekey(stage: Stage, plan: str) -> Rekey:
    return Rekey.of(stage.outputs, stage.url, plan, WHO, PEOPLE[WHO])


def keys_of(stage: Stage) -> set[int | None]:
    return {inspect(email).key_id for (email,) in stage.sql("SELECT email FROM customers")}


def test_values_come_back_under_the_older_key_and_read_as_before(stage: Stage, rotations: Rotations) -> None:
    plain = fill(stage, stage.cipher())
    [older] = keys_of(stage)
    plan = approved(stage, rotations).digest()
    rekey(stage, plan).forward()
    [newer] = keys_of(stage)
    assert newer != older
    found = rekey(stage, plan).back()
    assert keys_of(stage) == {older}
    assert read_all(stage, stage.cipher()) == plain
    assert (found["older_key"], found["newer_key"]) == (older, newer)
    assert found["newer_version"] == found["older_version"] + 1
    assert (found["under_older"], found["under_newer"]) == (100, 0)
    assert (found["converted"], found["same"], found["both_ways"]) == (100, 100, 100)
    assert rekey(stage, plan).end() == {"ended": True}
    assert stage.sql("SELECT id FROM fle_keys WHERE state = 'active' AND tenant = 'gold'") == [(older,)]


def test_each_step_may_be_done_again(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    plan = approved(stage, rotations).digest()
    for _ in range(2):
        rekey(stage, plan).forward()
    first = rekey(stage, plan).back()
    # What is on its way back does not go forward again.
    rekey(stage, plan).forward()
    assert rekey(stage, plan).back() == first
    for _ in range(2):
        assert rekey(stage, plan).end() == {"ended": True}
    with pytest.raises(CheckFailed, match="was ended before its values were read"):
        rekey(stage, plan).back()


def test_a_value_that_was_altered_is_not_back(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    plan = approved(stage, rotations).digest()
    rekey(stage, plan).forward()
    rekey(stage, plan).back()
    stage.sql("UPDATE customers SET email = (SELECT email FROM customers WHERE id = 2) WHERE id = 1")
    with pytest.raises(CheckFailed, match="1 values can't be decrypted"):
        rotations.verify_back(plan)


def test_the_end_waits_for_the_bus(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    made = rotations.plan("gold", "rekey", WHO, PEOPLE[WHO], 0, in_flight_days=7)
    approve(stage, rotations, made.digest())
    rekey(stage, made.digest()).forward()
    assert rekey(stage, made.digest()).back()["under_newer"] == 0
    waits = rekey(stage, made.digest()).end()
    assert not waits["ended"]
    assert "may lie on the bus until 7 days after" in waits["waits"]
    assert f"kilo fle rotate rollback {made.digest()[:12]}" in waits["waits"]


def test_only_an_approved_rekey_that_can_go_back_is_taken(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    made = rotations.plan("gold", "rekey", WHO, PEOPLE[WHO], 0)
    with pytest.raises(CheckFailed, match="needs 2 approvals"):
        rekey(stage, made.digest())
    with pytest.raises(BadInput, match="000000000000"):
        rekey(stage, "0" * 12)
    rotations.begin_rollback(made.digest(), WHO, PEOPLE[WHO])
    plan = approved(stage, rotations).digest()
    rotations.run(plan, WHO, lambda _: None)
    rotations.verify(plan, WHO)
    rotations.finalize(plan, WHO, PEOPLE[WHO])
    with pytest.raises(BadInput, match="is rekey and finalized; plan a rekey anew"):
        rekey(stage, plan)
