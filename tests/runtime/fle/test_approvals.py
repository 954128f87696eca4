"""Plans and approvals against somebody inside the database, and people who leave."""

from __future__ import annotations

from typing import Any

import pytest

from kilo.errors import BadInput, CheckFailed
from kilo.fle import CacheLimits, errors
from kilo.fle.formats import is_encrypted
from kilo.fle.rotation import approval
from kilo.fle.rotation.plan import make_plan

from .conftest import PEOPLE, Stage, public
from .test_rotation import TABLE, approve, approved, fill, quiet, read_all
from .test_scope import configured, rotations


def with_people(stage: Stage, **people: str) -> Stage:
    """The stage after a `pulumi up` that changed who may approve: names, each with whose key it is."""
    principals = [
        {"name": name.replace("_", "."), "public_key": public(PEOPLE[key])} for name, key in people.items()
    ]
    content: dict[str, Any] = stage.outputs.model_dump(mode="json")
    content["field_encryption"]["principals"] = principals
    return Stage(type(stage.outputs).model_validate(content), stage.url, stage.kms, stage.s3)


def signed(stage: Stage, plan: str, name: str, key: str, action: str = "approve") -> approval.Approval:
    return approval.sign(stage.outputs, action, plan, name, PEOPLE[key])


def test_a_plan_changes_nothing_before_it_is_approved_and_runs(stage: Stage) -> None:
    cipher = stage.cipher()
    cipher.encrypt("gold", "email", 1, "a@example.com")
    cipher.encrypt("gold", "phone", 1, "+4670000001")
    stage.sql(TABLE)
    left = configured(stage)
    before = stage.sql("SELECT tenant, field, encrypted, plain_accepted FROM fle_scope ORDER BY 1, 2")
    for kind in ("release", "adopt"):
        steps = rotations(left)
        plan = steps.plan("gold", kind, "requester", PEOPLE["requester"], 0, fields=["email"]).digest()
        assert (
            stage.sql("SELECT tenant, field, encrypted, plain_accepted FROM fle_scope ORDER BY 1, 2")
            == before
        )
        record = left.cipher().protect("gold", {"email": "n@example.com", "phone": "+4670000009"}, 5)
        assert all(is_encrypted(str(value)) for value in record.values())
        for field in ("email", "phone"):
            with pytest.raises(errors.PlaintextFound):
                left.cipher().reveal("gold", {field: "in plain"}, 1)
        with pytest.raises(CheckFailed, match="needs 2 approvals"):
            steps.run(plan, "tester", quiet)
        steps.begin_rollback(plan, "requester", PEOPLE["requester"])


def test_a_release_that_runs_lets_go_of_its_own_field_alone(stage: Stage) -> None:
    plain = fill(stage, stage.cipher(), rows=3)
    left = configured(stage)
    steps = rotations(left)
    plan = steps.plan("gold", "release", "requester", PEOPLE["requester"], 0, fields=["email"]).digest()
    approve(stage, steps, plan)
    assert steps.run(plan, "tester", quiet) == (True, [])
    record = left.cipher().protect("gold", {"email": "n@example.com", "phone": "+4670000009"}, 3)
    assert record["email"] == "n@example.com"
    assert is_encrypted(str(record["phone"]))
    assert left.cipher().reveal("gold", record, 3) == {"email": "n@example.com", "phone": "+4670000009"}
    with pytest.raises(errors.PlaintextFound):
        left.cipher().reveal("gold", {"phone": "in plain"}, 3)
    steps.verify(plan, "tester")
    steps.finalize(plan, "requester", PEOPLE["requester"])
    email, phone = stage.sql("SELECT email, details ->> 'phone' FROM customers WHERE id = 2")[0]
    assert left.cipher().reveal("gold", {"email": email, "phone": phone}, 2) == dict(
        zip(("email", "phone"), plain[2], strict=True)
    )


def test_moving_one_field_retires_no_key_that_others_lie_under(stage: Stage) -> None:
    """A key that was imported for old values is `retiring`, and stays readable."""
    from kilo.fle.commands.values import encrypt_v1

    stage.cipher().keyring.create("gold", "field-data", "retiring", bytearray(b"k" * 32))
    fill(stage, stage.cipher(), rows=2)
    old = encrypt_v1(b"k" * 32, b"+4611")
    stage.sql("UPDATE customers SET details = jsonb_build_object('phone', %s::text) WHERE id = 1", old)
    plan = (
        rotations(stage)
        .plan("gold", "release", "requester", PEOPLE["requester"], 0, fields=["email"])
        .digest()
    )
    approve(stage, rotations(stage), plan)
    steps = rotations(configured(stage, "phone"))
    steps.run(plan, "tester", quiet)
    steps.verify(plan, "tester")
    steps.finalize(plan, "requester", PEOPLE["requester"])
    assert stage.cipher().decrypt("gold", "phone", 1, old) == "+4611"


def test_readers_learn_of_a_release_before_the_first_value_changes(stage: Stage) -> None:
    plain = fill(stage, stage.cipher(), rows=3)
    plan = approved(stage, rotations(stage), "release", settle=3600).digest()
    steps = rotations(configured(stage))
    for _ in range(2):
        with pytest.raises(CheckFailed, match="announced: readers learn of it within 3600 s"):
            steps.run(plan, "tester", quiet)
    assert stage.sql("SELECT state FROM fle_rotations") == [("announced",)]
    assert read_all(stage, stage.cipher()) == plain
    # Writers go on encrypting until it runs, and whoever changes the mind loses nothing.
    assert configured(stage).cipher().protected_fields("gold") == {"email", "phone"}
    steps.begin_rollback(plan, "requester", PEOPLE["requester"])
    assert stage.sql("SELECT state FROM fle_rotations") == [("rolled-back",)]
    assert stage.sql("SELECT bool_and(encrypted), bool_or(plain_accepted) FROM fle_scope") == [(True, False)]


def test_a_plan_in_somebody_s_name_is_refused_at_every_step_and_can_be_rolled_back(stage: Stage) -> None:
    fill(stage, stage.cipher(), rows=3)
    steps = rotations(stage)
    plan = make_plan(stage.outputs, "gold", "rekey", "requester", 0, in_flight_days=0)
    stage.sql(
        "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state)"
        " VALUES (%s, 'gold', %s, 'requester', 'planned')",
        plan.digest(),
        plan.canonical(),
    )
    approve(stage, steps, plan.digest())
    with pytest.raises(CheckFailed, match="not signed by requester"):
        steps.run(plan.digest(), "tester", quiet)
    for state in ("running", "verified"):
        stage.past_triggers("UPDATE fle_rotations SET state = %s", state)
        with pytest.raises(CheckFailed, match="not signed by requester"):
            steps.verify(plan.digest(), "tester")
        if state == "verified":
            with pytest.raises(CheckFailed, match="not signed by requester"):
                steps.finalize(plan.digest(), "approver.one", PEOPLE["approver.one"])
        with pytest.raises(CheckFailed, match=r"rolling back plan .* needs 2 approvals"):
            steps.begin_rollback(plan.digest(), "approver.one", PEOPLE["approver.one"])
    stage.past_triggers("UPDATE fle_rotations SET state = 'planned'")
    steps.begin_rollback(plan.digest(), "approver.one", PEOPLE["approver.one"])
    assert stage.sql("SELECT state FROM fle_rotations") == [("rolled-back",)]


@pytest.fixture
def adopted(stage: Stage) -> str:
    """An adoption that ran and was verified."""
    stage.sql(TABLE)
    stage.sql("""INSERT INTO customers VALUES (1, 'gold', 'ana@example.com', '{"phone": "+4670"}')""")
    plan = approved(stage, rotations(stage), "adopt").digest()
    rotations(stage).run(plan, "tester", quiet)
    rotations(stage).verify(plan, "tester")
    return plan


def test_one_person_does_not_undo_an_adoption(stage: Stage, adopted: str) -> None:
    steps = rotations(configured(stage))
    with pytest.raises(CheckFailed, match=r"rolling back plan .* needs 2 approvals .* nobody approved"):
        steps.begin_rollback(adopted, "requester", PEOPLE["requester"])
    one = signed(stage, adopted, "approver.one", "approver.one", "approve-rollback")
    assert steps.approve(adopted, one, rollback=True) == 1
    with pytest.raises(CheckFailed, match="needs 2 approvals"):
        steps.begin_rollback(adopted, "approver.one", PEOPLE["approver.one"])
    # The approvals of the plan are none of its undoing.
    stage.sql(
        "UPDATE fle_rotation_approvals SET action = 'approve-rollback' WHERE principal = 'approver.two'"
    )
    with pytest.raises(CheckFailed, match="something else"):
        steps.begin_rollback(adopted, "requester", PEOPLE["requester"])
    assert is_encrypted(stage.sql("SELECT email FROM customers")[0][0])
    stage.sql("DELETE FROM fle_rotation_approvals WHERE principal = 'approver.two'")
    for name in ("approver.two",):
        steps.approve(adopted, signed(stage, adopted, name, name))
        steps.approve(adopted, signed(stage, adopted, name, name, "approve-rollback"), rollback=True)
    steps.begin_rollback(adopted, "requester", PEOPLE["requester"])
    steps.run(adopted, "tester", quiet)
    steps.end_rollback(adopted, "tester")
    assert stage.sql("SELECT email FROM customers") == [("ana@example.com",)]


def test_a_state_that_somebody_wrote_does_not_roll_back(stage: Stage, adopted: str) -> None:
    stage.sql("UPDATE fle_rotations SET state = 'rolling-back'")
    stage.sql("UPDATE fle_scope SET encrypted = false, plain_accepted = true")
    with pytest.raises(CheckFailed, match="nobody who may signed that"):
        rotations(configured(stage)).run(adopted, "tester", quiet)
    assert is_encrypted(stage.sql("SELECT email FROM customers")[0][0])


def test_going_back_from_v2_to_v1_takes_two_others(stage: Stage) -> None:
    stage.cipher().keyring.create("legacy", "field-data", "active", bytearray(b"k" * 32))
    stage.sql(TABLE)
    stage.sql(
        "INSERT INTO customers VALUES (1, 'legacy', %s, '{}')",
        stage.cipher().encrypt("legacy", "email", 1, "x"),
    )
    plan = approved(stage, rotations(stage), tenant="legacy").digest()
    rotations(stage).run(plan, "tester", quiet)
    with pytest.raises(CheckFailed, match=r"rolling back plan .* needs 2"):
        rotations(stage).begin_rollback(plan, "requester", PEOPLE["requester"])


def test_an_approver_who_leaves_does_not_count_and_another_takes_the_place(stage: Stage) -> None:
    plain = fill(stage, stage.cipher(), rows=3)
    plan = approved(stage, rotations(stage)).digest()
    rotations(stage).run(plan, "tester", quiet)
    after = with_people(stage, requester="requester", approver_one="approver.one", approver_new="stranger")
    steps = rotations(after)
    with pytest.raises(
        CheckFailed, match=r"approver.one approved it so far \(not counted: approver.two is not"
    ):
        steps.verify(plan, "tester")
    assert steps.approve(plan, signed(after, plan, "approver.new", "stranger")) == 2
    steps.verify(plan, "tester")
    steps.finalize(plan, "requester", PEOPLE["requester"])
    assert read_all(stage, stage.cipher()) == plain


def test_for_a_requester_who_leaves_a_third_approval_stands_in(stage: Stage) -> None:
    fill(stage, stage.cipher(), rows=3)
    plan = approved(stage, rotations(stage)).digest()
    after = with_people(
        stage, approver_one="approver.one", approver_two="approver.two", approver_new="stranger"
    )
    with pytest.raises(CheckFailed, match="needs 3 approvals"):
        rotations(after).run(plan, "tester", quiet)
    rotations(after).approve(plan, signed(after, plan, "approver.new", "stranger"))
    assert rotations(after).run(plan, "tester", quiet) == (True, [])


def test_rows_that_count_for_nothing_are_in_nobody_s_way(stage: Stage) -> None:
    fill(stage, stage.cipher(), rows=3)
    steps = rotations(stage)
    plan = steps.plan("gold", "rekey", "requester", PEOPLE["requester"], 0).digest()
    for name in ("approver.one", "approver.two", "nobody"):
        stage.sql(
            "INSERT INTO fle_rotation_approvals (plan_hash, principal, public_key, statement, signature)"
            " VALUES (%s, %s, '', '', '\\x00')",
            plan,
            name,
        )
    with pytest.raises(CheckFailed, match="nobody approved it so far"):
        steps.run(plan, "tester", quiet)
    approve(stage, steps, plan)
    assert steps.run(plan, "tester", quiet) == (True, [])


def test_settling_takes_as_long_as_keys_serve_from_memory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for seconds in (0, 1499):
        with pytest.raises(BadInput, match=r"--settle-seconds: .* is too short"):
            make_plan(stage.outputs, "gold", "rekey", "requester", seconds, in_flight_days=0)
    make_plan(stage.outputs, "gold", "rekey", "requester", 1500, in_flight_days=0)
    with pytest.raises(BadInput, match="a key may serve from memory for 1200 s"):
        CacheLimits(max_age_seconds=86_400)
