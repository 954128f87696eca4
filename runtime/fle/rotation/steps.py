"""The steps of a rotation: plan, approve, run, pause, verify, finalize, roll back.

Every step is one transaction that changes the state and appends the audit entry, or one that can be
repeated. A step that was killed is given again; two that run at once take turns on the rotation's row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import TupleRow

from runtime.contract import StackOutputs
from runtime.errors import CheckFailed, Unreachable
from runtime.fle.audit.log import append
from runtime.fle.cipher import FieldCipher
from runtime.fle.keytable import DATA
from runtime.fle.rotation import approval as approvals
from runtime.fle.rotation.backfill import Backfill, Progress, Work
from runtime.fle.rotation.check import decrypt_all, evidence_key, goal_of, held_by_dead_letters, remaining
from runtime.fle.rotation.columns import Columns
from runtime.fle.rotation.convert import Converter
from runtime.fle.rotation.evidence import SHOWN
from runtime.fle.rotation.plan import Flag, Kind, Plan, fields_of, make_plan
from runtime.fle.rotation.record import (
    Rotation,
    find,
    forget_scope,
    move,
    note_scope,
    record,
    require,
    retire,
    switch,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SETTLE_SECONDS = 1500
"""How long a writer may go on under a key it has in memory: the cache's age and outage time, and some."""


class Rotations:
    """Rotations of one stage.

    Args:
        outputs: the stage.
        database_url: PostgreSQL with the key table and the encrypted tables, as a role that may change both.
        cipher: bound to any table; its keys are used.
    """

    def __init__(self, outputs: StackOutputs, database_url: str, cipher: FieldCipher) -> None:
        self.outputs, self.url, self.cipher = outputs, database_url, cipher

    def plan(
        self,
        tenant: str,
        kind: Kind,
        requester: str,
        key: Ed25519PrivateKey,
        settle_seconds: int = SETTLE_SECONDS,
        *,
        in_flight_days: int | None = None,
        fields: Sequence[str] = (),
    ) -> Plan:
        """Plan a rotation; it is signed by its requester and waits for approval."""
        Flag(self.outputs).check()
        scope = self.cipher.keyring.table.read(tenant).scope
        plan = make_plan(
            self.outputs,
            tenant,
            kind,
            requester,
            settle_seconds,
            in_flight_days=in_flight_days,
            fields=fields,
            scope=scope,
        )
        signed = approvals.sign(self.outputs, "plan", plan.digest(), requester, key)
        with self.connect() as connection:
            for spec in plan.tables:
                Columns.load(connection, spec)
            made = connection.execute(
                "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state)"
                " VALUES (%s, %s, %s, %s, 'planned') ON CONFLICT DO NOTHING RETURNING plan_hash",
                (plan.digest(), tenant, plan.canonical(), requester),
            ).fetchone()
            if made is not None and kind == "release":
                # The configuration still names them now; rolling back must know what to encrypt again.
                note_scope(connection, tenant, self._configured(plan))
            if made is None:
                msg = f"tenant {tenant} has an open rotation already; finalize it or roll it back first"
                raise CheckFailed(msg)
            if kind != "rekey":
                # Readers learn of it before the first value changes: start waits until they must have.
                connection.execute(
                    "INSERT INTO fle_tenants (tenant, moving) VALUES (%s, %s)"
                    " ON CONFLICT (tenant) DO UPDATE SET moving = excluded.moving",
                    (tenant, kind),
                )
            details = {
                "plan": plan.digest(),
                "kind": kind,
                "content": plan.model_dump(mode="json"),
                "signature": signed.signature.hex(),
            }
            append(connection, requester, "plan", f"tenant/{tenant}", details)
        return plan

    def _configured(self, plan: Plan) -> frozenset[str]:
        """The plan's fields that the configuration encrypts for its tenant."""
        return fields_of(plan.tables) & frozenset(self.outputs.tenants[plan.tenant].encrypted_fields)

    def approve(self, plan_hash: str, approval: approvals.Approval) -> int:
        """Add an approval; returns how many the plan has."""
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "planned")
            public = approvals.public_key_of(self.outputs, approval.principal)
            requester = approvals.public_key_of(self.outputs, rotation.plan.requester)
            if approval.principal == rotation.plan.requester or public == requester:
                msg = f"{approval.principal} requested plan {rotation.plan_hash[:12]} and can't approve it"
                raise CheckFailed(msg)
            approvals.verify(self.outputs, "approve", rotation.plan_hash, approval)
            added = connection.execute(
                "INSERT INTO fle_rotation_approvals (plan_hash, principal, public_key, statement, signature)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    rotation.plan_hash,
                    approval.principal,
                    public.hex(),
                    approval.statement,
                    approval.signature,
                ),
            ).rowcount
            if added:
                details = {"signature": approval.signature.hex()}
                record(connection, rotation, approval.principal, "approve", details)
            row = connection.execute(
                "SELECT count(*) FROM fle_rotation_approvals WHERE plan_hash = %s", (rotation.plan_hash,)
            ).fetchone()
        return row[0] if row else 0

    def start(self, plan_hash: str, actor: str) -> Rotation:
        """Make the new key and point writers at it, or resume; returns the rotation as it is then."""
        Flag(self.outputs).check()
        with self.connect() as connection:
            rotation = find(connection, plan_hash)
            require(rotation, "planned", "running", "paused", "rolling-back")
            by = approvals.check_dual_control(
                connection, self.outputs, rotation.plan_hash, rotation.plan.requester
            )
        if rotation.state == "planned":
            if rotation.plan.kind != "rekey" and not rotation.settled:
                msg = (
                    f"plan {rotation.plan_hash[:12]}: readers learn of it within "
                    f"{rotation.plan.settle_seconds} s of planning; run it later"
                )
                raise CheckFailed(msg)
            self._switch_forward(rotation, actor, by)
        elif rotation.state == "paused":
            self._set(rotation, ("paused",), "running", actor, "resume")
        self.cipher.keyring.clear()
        with self.connect() as connection:
            return find(connection, plan_hash)

    def run(
        self,
        plan_hash: str,
        actor: str,
        on_batch: Callable[[Progress], None],
        batch_rows: int = 2000,
        rows_per_second: float | None = None,
    ) -> tuple[bool, list[str]]:
        """Backfill until nothing is left, or until it is paused; (done, values that can't be decrypted)."""
        rotation = self.start(plan_hash, actor)
        direction = "back" if rotation.state == "rolling-back" else "forward"
        failed: list[str] = []
        done = True
        with psycopg.connect(self.url, autocommit=True) as connection:

            def may_go_on() -> bool:
                return find(connection, plan_hash).state == rotation.state

            for spec in rotation.plan.tables:
                converter = Converter(
                    self.cipher.for_table(spec.context),
                    rotation.plan.tenant,
                    goal_of(rotation),
                    evidence_key(self.cipher, rotation),
                )
                work = Work(
                    rotation.plan_hash,
                    direction,
                    Columns.load(connection, spec),
                    batch_rows,
                    rows_per_second,
                )
                worker = Backfill(connection, converter, work, may_go_on)
                done = worker.run(on_batch) and done
                failed += sorted(worker.progress.failed)
        if done:
            self._backfilled(rotation, actor, len(failed))
        return done, failed

    def pause(self, plan_hash: str, actor: str) -> None:
        """Stop the workers after their batch; writers go on under the new key."""
        with self.connect() as connection:
            rotation = find(connection, plan_hash)
        self._set(rotation, ("running",), "paused", actor, "pause")

    def verify(self, plan_hash: str, actor: str) -> dict[str, int]:
        """Decrypt every value of the tenant, count, and compare with what it was before it was converted.

        The rotation is verified when all is in place and reads as before. Counts and, by column, the sums of
        before and after are in the audit log.

        Raises:
            CheckFailed: a value can't be decrypted, does not lie where it should, or reads otherwise.
        """
        self.cipher.keyring.clear()
        with self.connect() as connection:
            rotation = find(connection, plan_hash)
            require(rotation, "running", "verified")
            found = decrypt_all(connection, self.cipher, rotation)
            left = remaining(connection, self.cipher, rotation)
        counts = found.counts()
        if wrong := found.otherwise():
            msg = (
                f"plan {rotation.plan_hash[:12]}: {len(wrong)} values read otherwise than before they were "
                f"converted ({', '.join(wrong[:SHOWN])}); roll back"
            )
            raise CheckFailed(msg)
        if counts["failed"] or left:
            msg = (
                f"plan {rotation.plan_hash[:12]} is not complete: {counts['failed']} values can't be "
                f"decrypted and {left} are not where they should be; run it again"
            )
            raise CheckFailed(msg)
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "running", "verified")
            move(
                connection,
                rotation,
                state="verified",
                actor=actor,
                action="verify",
                details={
                    **counts,
                    "columns": {name: each.as_details() for name, each in sorted(found.columns.items())},
                },
            )
        return counts

    def finalize(self, plan_hash: str, principal: str, key: Ed25519PrivateKey) -> None:
        """Refuse the old key from now on and schedule its destruction; there is no way back."""
        Flag(self.outputs).check()
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "verified")
            signed = approvals.sign(self.outputs, "finalize", rotation.plan_hash, principal, key)
            approvals.check_dual_control(
                connection, self.outputs, rotation.plan_hash, rotation.plan.requester
            )
            self._check_gone(connection, rotation, "old", "finalize")
            if left := remaining(connection, self.cipher, rotation):
                msg = f"{left} values were written under the old key since; run and verify again"
                raise CheckFailed(msg)
            tenant = rotation.plan.tenant
            if rotation.new_key_id is not None:
                connection.execute(
                    "INSERT INTO fle_tenants (tenant, minimum_version)"
                    " SELECT tenant, version FROM fle_keys WHERE id = %s"
                    " ON CONFLICT (tenant) DO UPDATE SET minimum_version = excluded.minimum_version",
                    (rotation.new_key_id,),
                )
            connection.execute(
                "UPDATE fle_keys SET state = 'retired', destroy_after = now() + make_interval(days => %s)"
                " WHERE tenant = %s AND purpose = %s AND state = 'retiring'",
                (rotation.plan.destroy_after_days, tenant, DATA),
            )
            if rotation.plan.kind == "release":
                forget_scope(connection, rotation, fields_of(rotation.plan.tables))
            details = {
                "signature": signed.signature.hex(),
                "destroy_after_days": rotation.plan.destroy_after_days,
            }
            move(connection, rotation, state="finalized", actor=principal, action="finalize", details=details)

    def begin_rollback(self, plan_hash: str, principal: str, key: Ed25519PrivateKey) -> None:
        """Point writers back at the old key; :meth:`run` converts back, and :meth:`end_rollback` ends it."""
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "planned", "running", "paused", "verified", "rolling-back")
            signed = approvals.sign(self.outputs, "rollback", rotation.plan_hash, principal, key)
            details = {"signature": signed.signature.hex()}
            if rotation.state == "planned":
                move(
                    connection,
                    rotation,
                    state="rolled-back",
                    actor=principal,
                    action="rollback",
                    details=details,
                )
            elif rotation.state != "rolling-back":
                if rotation.old_key_id is not None and rotation.plan.kind == "rekey":
                    switch(connection, rotation.plan.tenant, rotation.new_key_id, rotation.old_key_id)
                connection.execute(
                    "UPDATE fle_rotations SET switched_at = now() WHERE plan_hash = %s", (rotation.plan_hash,)
                )
                move(
                    connection,
                    rotation,
                    state="rolling-back",
                    actor=principal,
                    action="rollback",
                    details=details,
                )
        self.cipher.keyring.clear()

    def end_rollback(self, plan_hash: str, actor: str) -> None:
        """Close a rollback, once nothing lies under the new key and no writer can still use it."""
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            if rotation.state == "rolled-back":
                return
            require(rotation, "rolling-back")
            if left := remaining(connection, self.cipher, rotation):
                msg = f"{left} values are not back yet; run it again"
                raise CheckFailed(msg)
            self._check_gone(connection, rotation, "new", "end the rollback")
            if rotation.new_key_id is not None and rotation.plan.kind == "rekey":
                days = rotation.plan.destroy_after_days
                retire(connection, rotation.plan.tenant, rotation.new_key_id, days)
            if rotation.plan.kind == "adopt":
                forget_scope(connection, rotation, rotation.scope - rotation.before)
            move(connection, rotation, state="rolled-back", actor=actor, action="rolled-back", details={})

    @contextmanager
    def connect(self) -> Generator[psycopg.Connection[TupleRow]]:
        """One transaction on a connection of its own."""
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                yield connection
        except psycopg.OperationalError as error:
            msg = f"the database can't be reached ({type(error).__name__} {error.sqlstate or ''})".rstrip()
            raise Unreachable(msg) from None

    def _check_gone(
        self, connection: psycopg.Connection[TupleRow], rotation: Rotation, which: str, step: str
    ) -> None:
        """Raise :class:`CheckFailed` while a value that only the key to be retired reads may still come."""
        plan = f"plan {rotation.plan_hash[:12]}"
        if not rotation.settled:
            msg = (
                f"{plan}: writers may use the {which} key until {rotation.plan.settle_seconds} s "
                f"after the switch; {step} later"
            )
            raise CheckFailed(msg)
        if not rotation.drained:
            msg = (
                f"{plan}: events under the {which} key may lie on the bus until "
                f"{rotation.plan.in_flight_days} days after the switch; {step} later"
            )
            raise CheckFailed(msg)
        leaving = rotation.old_key_id if which == "old" else rotation.new_key_id
        if held := held_by_dead_letters(connection, [leaving] if leaving else []):
            msg = (
                f"{held} dead letters hold values under the {which} key: replay or discard them (`kilo dlq`)"
            )
            raise CheckFailed(msg)

    def _switch_forward(self, rotation: Rotation, actor: str, approvers: list[str]) -> None:
        tenant, kind = rotation.plan.tenant, rotation.plan.kind
        with self.connect() as connection:
            # Made under the lock: of two runs at once the second would leave a key that nobody uses.
            locked = find(connection, rotation.plan_hash, lock=True)
            if locked.state != "planned":
                return
            if kind == "adopt":
                if not (adopted := self._configured(rotation.plan)):
                    msg = (
                        f"tenant {tenant} has none of the plan's fields in its encrypted_fields: "
                        "add them to the stage's configuration and run `pulumi up` first"
                    )
                    raise CheckFailed(msg)
                note_scope(connection, tenant, adopted)
            pending = None if kind == "release" else self._pending_key(tenant)
            row = connection.execute(
                "SELECT id FROM fle_keys WHERE tenant = %s AND purpose = %s AND state = 'active'",
                (tenant, DATA),
            ).fetchone()
            active = row[0] if row else None
            if active is None and kind != "adopt":
                msg = f"tenant {tenant} has no data key yet; there is nothing to rotate"
                raise CheckFailed(msg)
            if pending is not None:
                switch(connection, tenant, active, pending)
            connection.execute(
                "UPDATE fle_rotations SET old_key_id = %s, new_key_id = %s, switched_at = now()"
                " WHERE plan_hash = %s",
                (active, pending, rotation.plan_hash),
            )
            details = {"approvers": approvers, "old_key_id": active, "new_key_id": pending}
            move(connection, locked, state="running", actor=actor, action="run", details=details)

    def _pending_key(self, tenant: str) -> int:
        rows = self.cipher.keyring.table.read(tenant)
        # One left by a run that died is taken up: the tenant has one open rotation, this one.
        left = next((key.id for key in rows.keys if key.purpose == DATA and key.state == "pending"), None)
        return left if left is not None else self.cipher.keyring.create(tenant, DATA, "pending")

    def _set(self, rotation: Rotation, states: tuple[str, ...], state: str, actor: str, action: str) -> None:
        with self.connect() as connection:
            locked = find(connection, rotation.plan_hash, lock=True)
            if locked.state == state:
                return
            require(locked, *states)
            move(connection, locked, state=state, actor=actor, action=action, details={})

    def _backfilled(self, rotation: Rotation, actor: str, failed: int) -> None:
        direction = "back" if rotation.state == "rolling-back" else "forward"
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(rows_changed), 0)::bigint,"
                " encode(sha256(coalesce(string_agg(digest, ''::bytea ORDER BY seq), ''::bytea)), 'hex')"
                " FROM fle_rotation_batches WHERE plan_hash = %s AND direction = %s",
                (rotation.plan_hash, direction),
            ).fetchone()
            batches, changed, digest = row or (0, 0, "")
            details = {"direction": direction, "batches": batches, "rows": changed, "failed": failed}
            record(connection, rotation, actor, "backfilled", {**details, "digest": digest})
