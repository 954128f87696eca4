"""Rotation end to end: dual control, online backfill, verification, finalize, roll back."""

from __future__ import annotations

import psycopg
import pytest

from kilo.errors import CheckFailed
from kilo.fle import FieldCipher
from kilo.fle.errors import Downgraded
from kilo.fle.rotation import approval, backfill
from kilo.fle.rotation.plan import Plan
from kilo.fle.rotation.steps import Rotations

from .conftest import PEOPLE, Stage

PLAN = "0" * 64
TABLE = """
CREATE TABLE customers (id bigserial PRIMARY KEY, tenant text NOT NULL, email text, details jsonb)
"""


def fill(
    stage: Stage, cipher: FieldCipher, tenant: str = "gold", rows: int = 50
) -> dict[int, tuple[str, str]]:
    """Encrypted customers; what they are in plain by row."""
    plain = {number: (f"user{number}@example.com", f"+4670{number:07d}") for number in range(1, rows + 1)}
    with psycopg.connect(stage.url) as connection:
        connection.execute(TABLE)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO customers (id, tenant, email, details)"
                " VALUES (%s, %s, %s, jsonb_build_object('phone', %s::text, 'n', 1))",
                [
                    (
                        number,
                        tenant,
                        cipher.encrypt(tenant, "email", number, email),
                        cipher.encrypt(tenant, "phone", number, phone),
                    )
                    for number, (email, phone) in plain.items()
                ],
            )
    return plain


def read_all(stage: Stage, cipher: FieldCipher, tenant: str = "gold") -> dict[int, tuple[str, str]]:
    return {
        number: (
            cipher.decrypt(tenant, "email", number, email),
            cipher.decrypt(tenant, "phone", number, phone),
        )
        for number, email, phone in stage.sql(
            "SELECT id, email, details->>'phone' FROM customers WHERE tenant = %s ORDER BY id", tenant
        )
    }


def approved(
    stage: Stage, rotations: Rotations, kind: str = "rekey", settle: int = 0, tenant: str = "gold"
) -> Plan:
    plan = rotations.plan(tenant, kind, "requester", PEOPLE["requester"], settle)  # type: ignore[arg-type]
    approve(stage, rotations, plan.digest())
    return plan


def approve(stage: Stage, rotations: Rotations, plan: str, *, rollback: bool = False) -> None:
    action = "approve-rollback" if rollback else "approve"
    for name in ("approver.one", "approver.two"):
        signed = approval.sign(stage.outputs, action, plan, name, PEOPLE[name])
        rotations.approve(plan, signed, rollback=rollback)


@pytest.fixture
def rotations(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


def counted(values: int) -> dict[str, int]:
    """What verification says when every value was converted and none was written since."""
    nothing = {"failed": 0, "plain": 0, "written_since": 0}
    return {"values": values, "converted": values, "same": values, **nothing}


def quiet(_: object) -> None:
    pass


def test_a_rotation_moves_every_value_and_then_refuses_the_old_key(
    stage: Stage, rotations: Rotations
) -> None:
    cipher = stage.cipher()
    plain = fill(stage, cipher)
    before = stage.sql("SELECT email FROM customers WHERE id = 1")[0][0]
    plan = approved(stage, rotations)
    done, failed = rotations.run(plan.digest(), "tester", quiet, batch_rows=7)
    assert (done, failed) == (True, [])
    assert read_all(stage, cipher) == plain
    assert rotations.verify(plan.digest(), "tester") == counted(100)
    rotations.finalize(plan.digest(), "requester", PEOPLE["requester"])
    fresh = stage.cipher()
    assert read_all(stage, fresh) == plain
    with pytest.raises(Downgraded):
        fresh.decrypt("gold", "email", 1, before)
    states = stage.sql(
        "SELECT state, destroy_after > now() FROM fle_keys WHERE tenant = 'gold' ORDER BY version"
    )
    assert states == [("retired", True), ("active", None)]
    actions = [row[0] for row in stage.sql("SELECT entry::jsonb ->> 'action' FROM fle_audit ORDER BY seq")]
    steps = ["plan", "approve", "approve", "make-key", "run", "backfilled", "verify", "finalize"]
    assert actions == ["make-key", *steps]


def test_rolling_back_brings_every_value_under_the_old_key_again(stage: Stage, rotations: Rotations) -> None:
    cipher = stage.cipher()
    plain = fill(stage, cipher)
    plan = approved(stage, rotations)
    rotations.run(plan.digest(), "tester", quiet)
    rotations.begin_rollback(plan.digest(), "approver.one", PEOPLE["approver.one"])
    rotations.run(plan.digest(), "tester", quiet)
    rotations.end_rollback(plan.digest(), "tester")
    assert read_all(stage, stage.cipher()) == plain
    old = stage.sql("SELECT id FROM fle_keys WHERE state = 'active' AND tenant = 'gold'")[0][0]
    assert old == 1
    assert {row[0] for row in stage.sql("SELECT left(email, 8) FROM customers")} == {"AgEAAAAB"}


@pytest.mark.parametrize("who", ["nobody", "one", "requester"])
def test_a_plan_does_not_run_without_two_others(stage: Stage, rotations: Rotations, who: str) -> None:
    fill(stage, stage.cipher())
    plan = rotations.plan("gold", "rekey", "requester", PEOPLE["requester"])
    digest = plan.digest()
    if who == "one":
        rotations.approve(
            digest, approval.sign(stage.outputs, "approve", digest, "approver.one", PEOPLE["approver.one"])
        )
    if who == "requester":
        with pytest.raises(CheckFailed, match="can't approve"):
            rotations.approve(
                digest, approval.sign(stage.outputs, "approve", digest, "requester", PEOPLE["requester"])
            )
    with pytest.raises(CheckFailed, match="needs 2 approvals"):
        rotations.run(digest, "tester", quiet)


def test_adopting_encrypts_plain_values_and_releasing_gives_them_back(
    stage: Stage, rotations: Rotations
) -> None:
    stage.sql(TABLE)
    stage.sql(
        "INSERT INTO customers (tenant, email, details)"
        " SELECT 'gold', 'u' || n || '@example.com', '{}' FROM generate_series(1, 20) n"
    )
    plan = approved(stage, rotations, "adopt")
    assert rotations.run(plan.digest(), "tester", quiet) == (True, [])
    rotations.verify(plan.digest(), "tester")
    rotations.finalize(plan.digest(), "requester", PEOPLE["requester"])
    cipher = stage.cipher()
    stored = stage.sql("SELECT id, email FROM customers ORDER BY id")
    assert [cipher.decrypt("gold", "email", row, value) for row, value in stored] == [
        f"u{n}@example.com" for n in range(1, 21)
    ]
    back = approved(stage, rotations, "release")
    with pytest.raises(CheckFailed, match="email, phone would become plain"):
        rotations.run(back.digest(), "tester", quiet)
    tenants = {
        name: each.model_copy(update={"encrypted_fields": ()}) for name, each in stage.outputs.tenants.items()
    }
    outputs = stage.outputs.model_copy(update={"tenants": tenants})
    after = Rotations(outputs, stage.url, FieldCipher.from_outputs(outputs, stage.url, table="customers"))
    assert after.run(back.digest(), "tester", quiet) == (True, [])
    assert stage.sql("SELECT email FROM customers WHERE id = 3") == [("u3@example.com",)]


def test_v1_values_move_to_v2(stage: Stage, rotations: Rotations) -> None:
    cipher = stage.cipher()
    cipher.keyring.create("legacy", "field-data", "active", bytearray(b"k" * 32))
    stage.sql(TABLE)
    for number in range(1, 11):
        stage.sql(
            "INSERT INTO customers (id, tenant, email, details) VALUES (%s, 'legacy', %s, '{}')",
            number,
            cipher.encrypt("legacy", "email", number, f"v{number}"),
        )
    plan = approved(stage, rotations, tenant="legacy")
    assert rotations.run(plan.digest(), "tester", quiet) == (True, [])
    rotations.verify(plan.digest(), "tester")
    stored = stage.sql("SELECT id, email FROM customers ORDER BY id")
    assert all(value.startswith("AgEA") for _, value in stored)
    assert [cipher.decrypt("legacy", "email", row, value) for row, value in stored] == [
        f"v{n}" for n in range(1, 11)
    ]


class Clock:
    """Time that passes when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_limited_worker_makes_up_for_what_a_slow_batch_lost_and_for_no_more_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(backfill, "time", clock)
    worker = backfill.Backfill(None, None, backfill.Work(PLAN, "forward", 100, 1000.0), lambda: True)  # type: ignore[arg-type]

    def work(*seconds: float, rewritten: int = 100) -> float:
        for each in seconds:
            clock.now += each
            worker._keep_to_rate(rewritten)  # pyright: ignore[reportPrivateUsage]
        return round(clock.now, 6)

    assert work(0.02, 0.25, 0.02, 0.02, 0.02) == 100.5
    assert work(10.0) == 110.5
    assert work(*[0.02] * 20) == 111.6
    assert work(*[0.001] * 10, rewritten=0) == 111.8
