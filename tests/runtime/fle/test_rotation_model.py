"""Rotations as a machine of rules: plan, approve, run, kill, configure, roll back, in any order.

For two tenants and two fields: a field in scope is never written plain, nothing reads wrong or gets stuck.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kilo.errors import KiloError
from kilo.fle import CacheLimits, FieldCipher
from kilo.fle.formats import is_encrypted
from kilo.fle.rotation import approval, endings, steps
from kilo.fle.rotation.plan import Kind
from kilo.fle.rotation.steps import Rotations

from .conftest import PEOPLE, Stage
from .test_rotation import TABLE, quiet
from .test_scope import configured

TENANTS = ("gold", "second")
FIELDS = ("email", "phone")
KINDS: tuple[Kind, ...] = ("rekey", "adopt", "release")
NOW = CacheLimits(max_age_seconds=0, outage_seconds=0, negative_seconds=0)
tenants, fields = st.sampled_from(TENANTS), st.sampled_from(FIELDS)


class Killed(BaseException):
    """The process is gone at this point; its transaction with it."""


class Machine(RuleBasedStateMachine):
    """Every value that was written is known; processes learn at once, since plans settle in no time."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        for table in ("customers", "fle_rotation_batches", "fle_rotation_passes", "fle_rotation_approvals"):
            self.stage.past_triggers(f"DELETE FROM {table}")
        for table in ("fle_rotations", "fle_scope", "fle_wraps", "fle_keys", "fle_tenants", "fle_audit"):
            self.stage.past_triggers(f"DELETE FROM {table}")
        self.scope: dict[str, set[str]] = {"gold": {"email"}, "second": set()}
        self.stored: dict[tuple[str, int], dict[str, str]] = {}
        self.plans: dict[str, str] = {}
        self.number = 0

    def now(self) -> Stage:
        found = self.stage
        for tenant in TENANTS:
            found = configured(found, *sorted(self.scope[tenant]), tenant=tenant)
        return found

    def cipher(self) -> FieldCipher:
        return self.now().cipher(limits=NOW)

    def steps(self) -> Rotations:
        now = self.now()
        return Rotations(now.outputs, now.url, now.cipher(limits=NOW))

    def state(self, tenant: str) -> tuple[str, str, list[str]]:
        """The open rotation's state, kind and fields; empty when there is none."""
        if tenant not in self.plans:
            return "", "", []
        row = self.stage.sql(
            "SELECT state, plan::jsonb ->> 'kind',"
            " ARRAY(SELECT jsonb_object_keys(plan::jsonb -> 'tables' -> 0 -> 'columns'))"
            " FROM fle_rotations WHERE plan_hash = %s",
            self.plans[tenant],
        )[0]
        return cast("tuple[str, str, list[str]]", row)

    @rule(tenant=tenants, row=st.integers(1, 3))
    def write(self, tenant: str, row: int) -> None:
        self.number += 1
        plain = {"email": f"{tenant}{self.number}@example.com", "phone": f"+46{self.number:07d}"}
        cipher = self.cipher()
        record = cipher.protect(tenant, plain, self.row_id(tenant, row))
        for field in self.must_be_encrypted(tenant):
            assert is_encrypted(str(record[field])), (tenant, field, record)
        self.stage.sql(
            "INSERT INTO customers VALUES (%s, %s, %s, jsonb_build_object('phone', %s::text))"
            " ON CONFLICT (id) DO UPDATE SET email = excluded.email, details = excluded.details",
            self.row_id(tenant, row),
            tenant,
            record["email"],
            record["phone"],
        )
        self.stored[tenant, row] = plain

    @staticmethod
    def row_id(tenant: str, row: int) -> int:
        return row + 10 * TENANTS.index(tenant)

    def must_be_encrypted(self, tenant: str) -> set[str]:
        """What is in the configuration, and what lay encrypted unless an approved release of it runs."""
        noted = self.stage.sql("SELECT field, encrypted FROM fle_scope WHERE tenant = %s", tenant)
        held = {field for field, _ in noted}
        state, kind, moved = self.state(tenant)
        if kind == "release" and state in {"running", "paused", "verified"}:
            held -= set(moved)
        if kind == "adopt" and state not in {"", "planned", "finalized", "rolled-back"}:
            # Before it runs, and once it is taken back, writers do as the configuration says.
            held -= {field for field, encrypted in noted if not encrypted}
        return held | self.scope[tenant]

    @rule(tenant=tenants, field=fields)
    def configure(self, tenant: str, field: str) -> None:
        """A field comes in by an adoption that was announced or while nothing is stored; or it leaves."""
        state, kind, moved = self.state(tenant)
        if field in self.scope[tenant]:
            self.scope[tenant].remove(field)
            return
        plain = any(
            not is_encrypted(value)
            for (value,) in self.stage.sql(
                "SELECT CASE %s WHEN 'email' THEN email ELSE details ->> 'phone' END FROM customers"
                " WHERE tenant = %s",
                field,
                tenant,
            )
        )
        adopting = (
            kind == "adopt" and state in {"announced", "running", "paused", "verified"} and field in moved
        )
        if adopting or not plain:
            self.scope[tenant].add(field)

    @rule(tenant=tenants, kind=st.sampled_from(KINDS), chosen=st.sampled_from([(), *((f,) for f in FIELDS)]))
    def plan(self, tenant: str, kind: Kind, chosen: tuple[str, ...]) -> None:
        try:
            made = self.steps().plan(tenant, kind, "requester", PEOPLE["requester"], 0, fields=chosen)
        except KiloError:
            assert self.state(tenant)[0] not in {"", "finalized", "rolled-back"}
        else:
            self.plans[tenant] = made.digest()

    @rule(tenant=tenants, rollback=st.booleans())
    def approve(self, tenant: str, *, rollback: bool) -> None:
        state, _, _ = self.state(tenant)
        open_states = {"announced", "running", "paused", "verified"}
        if state in (open_states if rollback else {"planned"}):
            self.sign(tenant, rollback=rollback)

    def sign(self, tenant: str, *, rollback: bool) -> None:
        action = "approve-rollback" if rollback else "approve"
        for name in ("approver.one", "approver.two"):
            signed = approval.sign(self.stage.outputs, action, self.plans[tenant], name, PEOPLE[name])
            self.steps().approve(self.plans[tenant], signed, rollback=rollback)

    @precondition(lambda self: self.plans)
    @rule(
        tenant=tenants,
        step=st.sampled_from(["run", "pause", "verify", "finalize", "rollback", "end"]),
        killed=st.booleans(),
    )
    def step(self, tenant: str, step: str, *, killed: bool) -> None:
        """Any step at any time; some are killed where they would have said what they did."""
        if tenant not in self.plans:
            return
        with pytest.MonkeyPatch.context() as patch, suppress(KiloError, Killed):
            if killed:
                for holder in (steps, endings):
                    patch.setattr(holder, "move", _killed)
            self.take(tenant, step)

    def take(self, tenant: str, step: str) -> None:
        plan, them = self.plans[tenant], self.steps()
        actions: dict[str, Any] = {
            "run": lambda: them.run(plan, "tester", quiet, batch_rows=2),
            "pause": lambda: them.pause(plan, "tester"),
            "verify": lambda: them.verify(plan, "tester"),
            "finalize": lambda: them.finalize(plan, "requester", PEOPLE["requester"]),
            "rollback": lambda: them.begin_rollback(plan, "requester", PEOPLE["requester"]),
            "end": lambda: them.end_rollback(plan, "tester"),
        }
        actions[step]()

    @invariant()
    def everything_reads(self) -> None:
        cipher = self.cipher()
        for (tenant, row), plain in self.stored.items():
            at = self.row_id(tenant, row)
            email, phone = self.stage.sql(
                "SELECT email, details ->> 'phone' FROM customers WHERE id = %s", at
            )[0]
            assert cipher.reveal(tenant, {"email": email, "phone": phone}, at) == plain, (tenant, row)

    def teardown(self) -> None:
        """Whatever the state, the documented way leads out of it."""
        for tenant in self.plans:
            self.finish(tenant)
            assert self.state(tenant)[0] in {"finalized", "rolled-back"}
            self.everything_reads()

    def finish(self, tenant: str) -> None:
        state, kind, moved = self.state(tenant)
        if state in {"finalized", "rolled-back"}:
            return
        if state == "planned":
            self.take(tenant, "rollback")
            return
        if kind == "adopt":
            query = "SELECT scope_before FROM fle_rotations WHERE plan_hash = %s"
            ((before,),) = self.stage.sql(query, self.plans[tenant])
            self.scope[tenant] -= set(moved) - set(before)
        if state != "rolling-back":
            self.sign(tenant, rollback=True)
            self.take(tenant, "rollback")
        if self.state(tenant)[0] == "rolling-back":
            self.take(tenant, "run")
            self.take(tenant, "end")


def _killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.timeout(900)
def test_no_order_of_steps_writes_plain_reads_wrong_or_gets_stuck(stage: Stage) -> None:
    stage.sql(TABLE)
    Machine.stage = stage
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=5,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )
