"""How a rotation ends: finalized, which nothing takes back, or rolled back.

Every step is one transaction that changes the state and appends the audit entry, or one that can be
repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, Unreachable
from kilo.fle.cipher import FieldCipher
from kilo.fle.keytable import DATA
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation import scope_changes
from kilo.fle.rotation.check import check_keys, decrypt_all, held_by_dead_letters, remaining
from kilo.fle.rotation.coverage import coverage
from kilo.fle.rotation.evidence import SHOWN, unchanged
from kilo.fle.rotation.lookalikes import taken
from kilo.fle.rotation.plan import Flag
from kilo.fle.rotation.record import Rotation, find, move, require, retire, switch

if TYPE_CHECKING:
    from collections.abc import Generator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Endings:
    """Ends of one stage's rotations; see :class:`kilo.fle.rotation.steps.Rotations`."""

    def __init__(self, outputs: StackOutputs, database_url: str, cipher: FieldCipher) -> None:
        self.outputs, self.url, self.cipher = outputs, database_url, cipher

    def left(self, connection: psycopg.Connection[TupleRow], rotation: Rotation) -> int:
        """Values, or tokens, that do not yet lie where the rotation wants them."""
        plain = taken(connection, self.outputs, rotation)
        return remaining(connection, self.cipher, rotation, plain)

    def configured(self, rotation: Rotation) -> frozenset[str]:
        """The plan's fields that the configuration encrypts for its tenant."""
        tenant = self.outputs.tenants.get(rotation.plan.tenant)
        return rotation.fields & frozenset(tenant.encrypted_fields if tenant else ())

    def check_configuration(self, rotation: Rotation) -> None:
        """Raise :class:`CheckFailed` when the configuration is not what the rotation leads to."""
        if rotation.plan.kind == "release":
            self.check_left_configuration(rotation)
        elif rotation.plan.kind == "adopt" and (more := self.configured(rotation) - rotation.scope):
            msg = (
                f"{rotation.name}: {', '.join(sorted(more))} came into the configuration since; run it again"
            )
            raise CheckFailed(msg)

    def check_left_configuration(self, rotation: Rotation, stays: frozenset[str] = frozenset()) -> None:
        """Raise :class:`CheckFailed` while the configuration encrypts fields that are about to be plain."""
        if named := self.configured(rotation) - stays:
            msg = (
                f"{rotation.name}: {', '.join(sorted(named))} would become plain and is among the "
                f"encrypted_fields of {rotation.plan.tenant}: take it out and run `pulumi up` first"
            )
            raise CheckFailed(msg)

    def finalize(self, plan_hash: str, principal: str, key: Ed25519PrivateKey) -> None:
        """Refuse the old key from now on and schedule its destruction; there is no way back."""
        Flag(self.outputs).check()
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "verified")
            signed = approvals.sign(self.outputs, "finalize", rotation.plan_hash, principal, key)
            others = approvals.check_plan(connection, self.outputs, rotation)
            self.check_configuration(rotation)
            check_keys(connection, rotation)
            self._check_gone(connection, rotation, "old", "finalize")
            if left := self.left(connection, rotation):
                msg = f"{left} values were written under the old key since; run and verify again"
                raise CheckFailed(msg)
            tenant = rotation.plan.tenant
            # Adoption and release leave keys alone: other fields' values may lie under any of them.
            replaces = rotation.plan.kind in {"rekey", "reindex"}
            if replaces and rotation.purpose == DATA:
                connection.execute(
                    "INSERT INTO fle_tenants (tenant, minimum_version)"
                    " SELECT tenant, version FROM fle_keys WHERE id = %s"
                    " ON CONFLICT (tenant) DO UPDATE SET minimum_version = excluded.minimum_version",
                    (rotation.new_key_id,),
                )
            retired: list[tuple[int]] = connection.execute(
                "UPDATE fle_keys SET state = 'retired', destroy_after = now() + make_interval(days => %s)"
                " WHERE tenant = %s AND purpose = %s AND state = 'retiring' AND %s RETURNING id",
                (rotation.plan.destroy_after_days, tenant, rotation.purpose, replaces),
            ).fetchall()
            scope_changes.settle(connection, rotation)
            details = {
                "signature": signed.signature.hex(),
                "approvals": others,
                "destroy_after_days": rotation.plan.destroy_after_days,
                "retired": sorted(key_id for (key_id,) in retired),
            }
            move(connection, rotation, state="finalized", actor=principal, action="finalize", details=details)

    def begin_rollback(self, plan_hash: str, principal: str, key: Ed25519PrivateKey) -> None:
        """Point writers back at the old key; :meth:`run` converts back, and :meth:`end_rollback` ends it.

        Where that lowers protection, two others must have approved it (:meth:`approve` with ``rollback``).
        """
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "planned", "announced", "running", "paused", "verified", "rolling-back")
            signed = approvals.sign(self.outputs, "rollback", rotation.plan_hash, principal, key)
            if rotation.state == "rolling-back":
                return
            if rotation.plan.kind == "rekey":
                check_keys(connection, rotation)
            others = (
                approvals.check_rollback(connection, self.outputs, rotation, principal)
                if self._lowers_protection(connection, rotation)
                else {}
            )
            details = {"signature": signed.signature.hex(), "approvals": others}
            if rotation.plan.kind == "adopt" and rotation.state != "planned":
                self.check_left_configuration(rotation, stays=rotation.before)
            public = approvals.public_key_of(self.outputs, principal)
            approvals.keep(connection, rotation.plan_hash, "rollback", signed, public)
            at_once = rotation.state == "planned"
            if rotation.state != "planned":
                at_once = self._turn_back(connection, rotation)
            state = "rolled-back" if at_once else "rolling-back"
            move(connection, rotation, state=state, actor=principal, action="rollback", details=details)
        self.cipher.keyring.clear()

    def _turn_back(self, connection: psycopg.Connection[TupleRow], rotation: Rotation) -> bool:
        """Let writers do as they did before; whether nothing is left to convert."""
        old, kind = rotation.old_key_id, rotation.plan.kind
        if kind in {"adopt", "release"}:
            scope_changes.change_back(connection, rotation)
        elif old is not None:
            switch(connection, rotation.plan.tenant, rotation.new_key_id, old)
        if rotation.state == "announced":
            row = connection.execute(
                "SELECT id FROM fle_keys WHERE tenant = %s AND purpose = %s AND state = 'active'",
                (rotation.plan.tenant, rotation.purpose),
            ).fetchone()
            old = row[0] if row else None
            if kind == "release" or old is None:
                # Writers have encrypted all along, or nobody could.
                scope_changes.settle(connection, rotation)
                return True
        connection.execute(
            "UPDATE fle_rotations SET switched_at = now(), old_key_id = %s WHERE plan_hash = %s",
            (old, rotation.plan_hash),
        )
        return False

    def _lowers_protection(self, connection: psycopg.Connection[TupleRow], rotation: Rotation) -> bool:
        """Whether rolling back makes values plain, or brings them under a format that binds less.

        A plan that is not its requester's, or lost its approvals, may do anything: it counts as well.
        """
        if rotation.state == "planned":
            return False
        try:
            approvals.check_plan(connection, self.outputs, rotation)
        except CheckFailed:
            return True
        if rotation.plan.kind != "rekey":
            return rotation.plan.kind == "adopt"
        row = connection.execute(
            "SELECT old.format < new.format FROM fle_keys old, fle_keys new"
            " WHERE old.id = %s AND new.id = %s",
            (rotation.old_key_id, rotation.new_key_id),
        ).fetchone()
        return bool(row and row[0])

    def _check_rolling_back(self, connection: psycopg.Connection[TupleRow], rotation: Rotation) -> None:
        """Raise :class:`CheckFailed` unless somebody signed the rollback, and others where it needs them."""
        by, _ = approvals.count(connection, self.outputs, rotation, "rollback", "")
        if not by:
            msg = f"{rotation.name} is rolling back, and nobody who may signed that; give rollback again"
            raise CheckFailed(msg)
        if self._lowers_protection(connection, rotation):
            problem: CheckFailed | None = None
            for principal in by:
                try:
                    approvals.check_rollback(connection, self.outputs, rotation, principal)
                except CheckFailed as error:
                    problem = error
                else:
                    return
            if problem is not None:
                raise problem

    def verify_back(self, plan_hash: str) -> dict[str, Any]:
        """Decrypt every value of the tenant of a rekey that goes back: all must lie under the older key.

        Returns:
            Both keys with their versions, how many values lie under each, how many are plain, how many of
            those that came back read as they did then, and how many gave the same forward and back.

        Raises:
            CheckFailed: a value lies under the newer key, can't be decrypted, or reads otherwise than before.
        """
        self.cipher.keyring.clear()
        with self.connect() as connection:
            rotation = find(connection, plan_hash)
            require(rotation, "rolling-back")
            check_keys(connection, rotation)
            plain = taken(connection, self.outputs, rotation)
            found = decrypt_all(connection, self.cipher, rotation, plain)
            both_ways = unchanged(connection, rotation.plan_hash)
            under: dict[str, int] = {}
            for each in coverage(connection, rotation.plan.tables, [rotation.plan.tenant]):
                under[each.under] = under.get(each.under, 0) + each.values
            ids = [rotation.old_key_id, rotation.new_key_id]
            versions = dict(
                connection.execute("SELECT id, version FROM fle_keys WHERE id = ANY(%s)", (ids,)).fetchall()
            )
        older, newer = (str(each) for each in ids)
        counts, wrong = found.counts(), found.otherwise()
        late = under.get(newer, 0)
        if counts["failed"] or wrong or late:
            msg = (
                f"{rotation.name}: {counts['failed']} values can't be decrypted, {len(wrong)} read otherwise "
                f"than before ({', '.join(wrong[:SHOWN]) or 'none'}), and {late} lie under the newer key"
            )
            raise CheckFailed(msg)
        return {
            "tenant": rotation.plan.tenant,
            "older_key": rotation.old_key_id,
            "older_version": versions.get(rotation.old_key_id),
            "newer_key": rotation.new_key_id,
            "newer_version": versions.get(rotation.new_key_id),
            "under_older": under.get(older, 0),
            "under_newer": under.get(newer, 0),
            "plain": under.get("plain", 0),
            "converted": counts["converted"],
            "same": counts["same"],
            "both_ways": both_ways,
        }

    def end_rollback(self, plan_hash: str, actor: str) -> None:
        """Close a rollback, once nothing lies under the new key and no writer can still use it."""
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            if rotation.state == "rolled-back":
                return
            require(rotation, "rolling-back")
            self._check_rolling_back(connection, rotation)
            check_keys(connection, rotation)
            if rotation.plan.kind == "adopt":
                self.check_left_configuration(rotation, stays=rotation.before)
            if left := self.left(connection, rotation):
                msg = f"{left} values are not back yet; run it again"
                raise CheckFailed(msg)
            self._check_gone(connection, rotation, "new", "end the rollback")
            retired: list[int] = []
            if rotation.new_key_id is not None and rotation.plan.kind in {"rekey", "reindex"}:
                days = rotation.plan.destroy_after_days
                retire(connection, rotation.plan.tenant, rotation.new_key_id, days)
                retired.append(rotation.new_key_id)
            scope_changes.settle(connection, rotation)
            details = {"retired": retired, "destroy_after_days": rotation.plan.destroy_after_days}
            move(
                connection, rotation, state="rolled-back", actor=actor, action="rolled-back", details=details
            )

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
        if rotation.purpose == DATA and (
            held := held_by_dead_letters(connection, [leaving] if leaving else [])
        ):
            msg = (
                f"{held} dead letters hold values under the {which} key: replay or discard them (`kilo dlq`)"
            )
            raise CheckFailed(msg)
