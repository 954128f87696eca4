"""Rotations as a machine of rules: plan, approve, run, kill, configure, roll back, in any order.

Two tenants and two fields, with rows from the start. Beside the processes of now, which learn at once, there
are stale ones: they go on with keys, scope and configuration from memory until time passes, which is when a
plan's settle time is over too. Whoever owns the database puts approvals of other plans under this one, and
sets a plan's time back, so that it ends while the stale ones write on.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.fle import CacheLimits, FieldCipher
from kilo.fle.audit.log import read
from kilo.fle.audit.signatures import check_signatures
from kilo.fle.audit.states import check_states
from kilo.fle.errors import KeyRetired
from kilo.fle.formats import is_encrypted
from kilo.fle.kms import KmsClients
from kilo.fle.rotation import approval
from kilo.fle.rotation.plan import Kind
from kilo.fle.rotation.steps import Rotations
from kilo.fle.shred import destroy_due

from .conftest import PEOPLE, Stage, public
from .kills import Killed, killed_at
from .test_rotation import TABLE, quiet
from .test_scope import configured

TENANTS = ("gold", "second")
FIELDS = ("email", "phone")
KINDS: tuple[Kind, ...] = ("rekey", "adopt", "release")
NEWCOMERS = ("newcomer.one", "newcomer.two", "newcomer.three")
KEYS = {**PEOPLE, **{name: Ed25519PrivateKey.generate() for name in NEWCOMERS}}
NAMES = ("requester", "approver.one", "approver.two")
SETTLE = 1500
ENDED = {"", "finalized", "rolled-back"}
RUNNING = {"running", "paused", "verified"}
tenants, fields, names = st.sampled_from(TENANTS), st.sampled_from(FIELDS), st.sampled_from(NAMES)


class Machine(RuleBasedStateMachine):
    """Every value that was written is known, and so is everybody who signed."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        for table in ("fle_rotation_batches", "fle_rotation_passes", "fle_rotation_approvals"):
            self.stage.past_triggers(f"DELETE FROM {table}")
        for table in ("fle_rotations", "fle_scope", "fle_wraps", "fle_keys", "fle_tenants", "fle_audit"):
            self.stage.past_triggers(f"DELETE FROM {table}")
        self.stage.sql("DROP TABLE IF EXISTS customers")
        self.stage.sql(TABLE)
        self.kms = KmsClients()
        self.scope: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
        self.people = {*NAMES}
        self.stored: dict[tuple[str, int], dict[str, str]] = {}
        self.plans: dict[str, str] = {}
        self.requesters: dict[str, str] = {}
        self.signed: dict[tuple[str, str], set[str]] = {}
        self.stale: list[tuple[FieldCipher, dict[str, set[str]]]] = []
        self.aged: set[str] = set()
        self.number = 0

    @initialize(first=st.sets(fields), second=st.sets(fields))
    def begin(self, first: set[str], second: set[str]) -> None:
        self.scope = {"gold": set(first), "second": set(second)}
        for tenant in TENANTS:
            for row in (1, 2, 3):
                self.write(tenant, row)

    def outputs(self) -> StackOutputs:
        found = self.stage
        for tenant in TENANTS:
            found = configured(found, *sorted(self.scope[tenant]), tenant=tenant)
        kind = type(found.outputs.field_encryption.principals[0])
        people = tuple(
            kind(name=name, public_key=public(KEYS[name])) for name in (*sorted(self.people), *NEWCOMERS)
        )
        settings = found.outputs.field_encryption.model_copy(update={"principals": people})
        return found.outputs.model_copy(update={"field_encryption": settings})

    def cipher(self, **settings: Any) -> FieldCipher:
        """That of a process which starts now."""
        return FieldCipher.from_outputs(
            self.outputs(), self.stage.url, table="customers", kms=self.kms, **settings
        )

    def steps(self) -> Rotations:
        return Rotations(self.outputs(), self.stage.url, self.cipher())

    def state(self, tenant: str) -> tuple[str, str, set[str]]:
        """The open rotation's state, kind and fields; empty when there is none."""
        if tenant not in self.plans:
            return "", "", set()
        state, kind, moved = self.stage.sql(
            "SELECT state, plan::jsonb ->> 'kind',"
            " ARRAY(SELECT jsonb_object_keys(plan::jsonb -> 'tables' -> 0 -> 'columns'))"
            " FROM fle_rotations WHERE plan_hash = %s",
            self.plans[tenant],
        )[0]
        return state, kind, set(moved)

    @rule(tenant=tenants, row=st.integers(1, 4))
    def write(self, tenant: str, row: int) -> None:
        record = self.put(self.cipher(), tenant, row)
        for field in self.must_be_encrypted(tenant):
            assert is_encrypted(str(record[field])), (tenant, field, record)

    @precondition(lambda self: len(self.stale) < 2)
    @rule()
    def a_process_goes_on_with_what_it_knows(self) -> None:
        # Message by message, so that each asks whether the key may still be used.
        cipher = self.cipher(limits=CacheLimits(reserve_messages=1))
        for tenant in TENANTS:
            cipher.protected_fields(tenant)
        self.reads(cipher)
        self.stale.append((cipher, {tenant: set(names) for tenant, names in self.scope.items()}))

    @precondition(lambda self: self.stale)
    @rule(tenant=tenants, row=st.integers(1, 4), which=st.integers(0, 1))
    def stale_write(self, tenant: str, row: int, which: int) -> None:
        cipher, _ = self.stale[which % len(self.stale)]
        try:
            self.put(cipher, tenant, row)
        except KeyRetired:
            assert self.plans[tenant] in self.aged
            # It has learned of it.
            self.put(cipher, tenant, row)

    @precondition(lambda self: self.stale and self.plans)
    @rule(tenant=tenants, name=names)
    def the_owner_sets_a_plans_time_back(self, tenant: str, name: str) -> None:
        """Of a plan that changes keys: what a stale process writes plain, only the settle time keeps away."""
        if self.state(tenant)[1] == "rekey":
            self.aged.add(self.plans[tenant])
            self.stage.past_triggers(
                "UPDATE fle_rotations SET switched_at = switched_at - interval '90 days'"
                " WHERE plan_hash = %s",
                self.plans[tenant],
            )
            self.get_on(tenant, name)

    @rule()
    def time_passes(self) -> None:
        """Longer than any process serves keys from memory, than plans settle and than keys wait."""
        self.stale.clear()
        self.stage.past_triggers(
            "UPDATE fle_rotations SET switched_at = switched_at - interval '90 days',"
            " created_at = created_at - interval '90 days'"
        )
        self.stage.past_triggers("UPDATE fle_keys SET destroy_after = destroy_after - interval '90 days'")

    @rule()
    def destroy_what_is_due(self) -> None:
        with psycopg.connect(self.stage.url) as connection:
            destroy_due(connection, "tester")

    def put(self, cipher: FieldCipher, tenant: str, row: int) -> dict[str, object]:
        self.number += 1
        plain = {"email": f"{tenant}{self.number}@example.com", "phone": f"+46{self.number:07d}"}
        record = cipher.protect(tenant, plain, self.row_id(tenant, row))
        self.stage.sql(
            "INSERT INTO customers VALUES (%s, %s, %s, jsonb_build_object('phone', %s::text))"
            " ON CONFLICT (id) DO UPDATE SET email = excluded.email, details = excluded.details",
            self.row_id(tenant, row),
            tenant,
            record["email"],
            record["phone"],
        )
        self.stored[tenant, row] = plain
        return record

    @staticmethod
    def row_id(tenant: str, row: int) -> int:
        return row + 10 * TENANTS.index(tenant)

    def must_be_encrypted(self, tenant: str) -> set[str]:
        """What is in the configuration, and what lay encrypted unless an approved release of it runs."""
        noted = self.stage.sql("SELECT field, encrypted FROM fle_scope WHERE tenant = %s", tenant)
        held = {field for field, _ in noted}
        state, kind, moved = self.state(tenant)
        if kind == "release" and state in RUNNING:
            held -= moved
        if kind == "adopt" and state not in {*ENDED, "planned"}:
            # Before it runs, and once it is taken back, writers do as the configuration says.
            held -= {field for field, encrypted in noted if not encrypted}
        return held | self.scope[tenant]

    @rule(tenant=tenants, field=fields)
    def configure(self, tenant: str, field: str) -> None:
        """A field comes in by an adoption that was announced or while nothing is stored; or it leaves."""
        state, kind, moved = self.state(tenant)
        noted = self.stage.sql("SELECT FROM fle_scope WHERE tenant = %s AND field = %s", tenant, field)
        if field in self.scope[tenant]:
            # What nobody has encrypted yet is not known to those who don't have the old configuration.
            if noted or not self.stale:
                self.scope[tenant].remove(field)
            return
        adopting = kind == "adopt" and state in {"announced", *RUNNING} and field in moved
        if adopting or (not self.plain(tenant, field) and not self.stale):
            self.scope[tenant].add(field)

    def plain(self, tenant: str, field: str) -> bool:
        column = "email" if field == "email" else "details ->> 'phone'"
        rows = self.stage.sql(f"SELECT {column} FROM customers WHERE tenant = %s", tenant)
        return any(not is_encrypted(value) for (value,) in rows)

    @rule(name=names)
    def somebody_leaves_or_comes_back(self, name: str) -> None:
        self.people ^= {name}

    @rule(
        tenant=tenants,
        kind=st.sampled_from(KINDS),
        chosen=st.sampled_from([(), *((f,) for f in FIELDS)]),
        name=names,
    )
    def plan(self, tenant: str, kind: Kind, chosen: tuple[str, ...], name: str) -> None:
        try:
            made = self.steps().plan(tenant, kind, name, KEYS[name], SETTLE, fields=chosen)
        except KiloError:
            assert self.state(tenant)[0] not in ENDED or name not in self.people
        else:
            assert self.state(tenant)[0] in ENDED
            self.plans[tenant], self.requesters[tenant] = made.digest(), name

    @precondition(lambda self: self.plans)
    @rule(tenant=tenants, name=names, rollback=st.booleans())
    def approve(self, tenant: str, name: str, *, rollback: bool) -> None:
        """One person signs; whoever requested a plan is refused under it."""
        if tenant in self.plans:
            try:
                self.sign(tenant, name, rollback=rollback)
            except KiloError:
                return
            assert rollback or name != self.requesters[tenant]

    @precondition(lambda self: self.plans)
    @rule(tenant=tenants, rollback=st.booleans())
    def approve_by_two(self, tenant: str, *, rollback: bool) -> None:
        """As people do in fact, so that rotations get on."""
        for name in NAMES:
            self.approve(tenant, name, rollback=rollback)

    def sign(self, tenant: str, name: str, *, rollback: bool) -> None:
        action = "approve-rollback" if rollback else "approve"
        signed = approval.sign(self.outputs(), action, self.plans[tenant], name, KEYS[name])
        self.steps().approve(self.plans[tenant], signed, rollback=rollback)
        self.signed.setdefault((self.plans[tenant], action), set()).add(name)

    @precondition(lambda self: self.plans)
    @rule(tenant=tenants)
    def put_other_plans_approvals_under_this_one(self, tenant: str) -> None:
        if tenant in self.plans:
            self.stage.sql(
                "INSERT INTO fle_rotation_approvals"
                " (plan_hash, action, principal, public_key, statement, signature)"
                " SELECT DISTINCT ON (principal, other.action) %s, other.action, principal, public_key,"
                " statement, signature FROM (SELECT *, unnest(ARRAY['approve', 'approve-rollback']) AS as_one"
                " FROM fle_rotation_approvals) o, LATERAL (SELECT o.as_one AS action) other"
                " ON CONFLICT DO NOTHING",
                self.plans[tenant],
            )

    @precondition(lambda self: self.plans)
    @rule(
        tenant=tenants,
        step=st.sampled_from(["run", "pause", "verify", "finalize", "rollback", "end"]),
        name=names,
        killed=st.one_of(st.just(0), st.integers(1, 60)),
    )
    def step(self, tenant: str, step: str, name: str, killed: int) -> None:
        """Any step at any time, some killed at one of their statements."""
        if tenant not in self.plans:
            return
        before = self.state(tenant)[0]
        try:
            with killed_at(killed):
                self.take(tenant, step, name)
        except (KiloError, Killed):
            # Killed or refused, it may have gone one state further.
            after = self.state(tenant)[0]
            if (before, after) in {
                ("planned", "announced"),
                ("planned", "running"),
                ("announced", "running"),
            }:
                self.check_approved(tenant)
        else:
            self.check_step(tenant, step, before, name)

    @precondition(lambda self: self.plans)
    @rule(tenant=tenants, name=names)
    def get_on(self, tenant: str, name: str) -> None:
        """What the runbook says, to the next state."""
        state, _, _ = self.state(tenant)
        following = {
            "planned": "run",
            "announced": "run",
            "running": "verify",
            "paused": "run",
            "verified": "finalize",
            "rolling-back": "end",
        }
        if state in {"running", "rolling-back"}:
            self.step(tenant, "run", name, 0)
        if state not in ENDED:
            self.step(tenant, following[state], name, 0)

    def check_step(self, tenant: str, step: str, before: str, name: str) -> None:
        """A step that was taken was approved by as many as it needs."""
        if step in {"verify", "finalize"} or (step == "run" and before != "rolling-back"):
            self.check_approved(tenant)
        if step == "rollback" and self.state(tenant)[1] == "adopt" and before in {"announced", *RUNNING}:
            against = self.signed.get((self.plans[tenant], "approve-rollback"), set())
            assert len((against & self.everybody()) - {name}) >= 2, (tenant, against, name)
        if step == "finalize":
            aged = self.plans[tenant] in self.aged
            assert aged or not self.stale, "finalized while processes may go on as before"

    def check_approved(self, tenant: str) -> None:
        requester = self.requesters[tenant]
        signed = self.signed.get((self.plans[tenant], "approve"), set()) & self.everybody()
        needed = 2 if requester in self.everybody() else 3
        assert len(signed - {requester}) >= needed, (tenant, requester, signed)

    def everybody(self) -> set[str]:
        return self.people | {*NEWCOMERS}

    def take(self, tenant: str, step: str, name: str) -> None:
        plan, them, key = self.plans[tenant], self.steps(), KEYS[name]
        actions: dict[str, Any] = {
            "run": lambda: them.run(plan, "tester", quiet, batch_rows=2),
            "pause": lambda: them.pause(plan, "tester"),
            "verify": lambda: them.verify(plan, "tester"),
            "finalize": lambda: them.finalize(plan, name, key),
            "rollback": lambda: them.begin_rollback(plan, name, key),
            "end": lambda: them.end_rollback(plan, "tester"),
        }
        actions[step]()

    @invariant()
    def everything_reads_everywhere(self) -> None:
        self.reads(self.cipher())
        for cipher, _ in self.stale:
            self.reads(cipher)

    def reads(self, cipher: FieldCipher) -> None:
        for number, email, phone in self.stage.sql("SELECT id, email, details ->> 'phone' FROM customers"):
            tenant = TENANTS[number // 10]
            plain = self.stored[tenant, number % 10]
            assert cipher.reveal(tenant, {"email": email, "phone": phone}, number) == plain, number

    @invariant()
    def what_readers_take_encrypted_only_lies_encrypted(self) -> None:
        for tenant, field in self.stage.sql(
            "SELECT tenant, field FROM fle_scope WHERE encrypted AND NOT plain_accepted"
        ):
            assert not self.plain(tenant, field), (tenant, field)

    def teardown(self) -> None:
        """Whatever the state, the documented way leads out of it, and the log tells a true story."""
        for tenant in self.plans:
            self.finish(tenant)
            assert self.state(tenant)[0] in ENDED, self.state(tenant)
        self.everything_reads_everywhere()
        with psycopg.connect(self.stage.url) as connection:
            entries = read(connection)
            assert check_states(connection, entries) == []
        people = {name: [key.public_key().public_bytes_raw()] for name, key in KEYS.items()}
        assert check_signatures(entries, "test", people)[1] == []

    def finish(self, tenant: str) -> None:
        """By people who have just come: whoever left is in nobody's way."""
        state, kind, moved = self.state(tenant)
        roller = NEWCOMERS[0]
        if state == "planned":
            self.take(tenant, "rollback", roller)
        if kind == "adopt" and state not in {*ENDED, "planned"}:
            query = "SELECT scope_before FROM fle_rotations WHERE plan_hash = %s"
            ((before,),) = self.stage.sql(query, self.plans[tenant])
            self.scope[tenant] -= moved - set(cast("list[str]", before))
        if state in {"announced", *RUNNING, "rolling-back"}:
            if state != "rolling-back":
                for name in NEWCOMERS[1:]:
                    self.sign(tenant, name, rollback=True)
            self.take(tenant, "rollback", roller)
            self.time_passes()
        if self.state(tenant)[0] == "rolling-back":
            self.take(tenant, "run", roller)
            self.take(tenant, "end", roller)
