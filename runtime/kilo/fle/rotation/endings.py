"""How a rotation ends: finalized, which nothing takes back, or rolled back.

Every step is one transaction that changes the state and appends the audit entry, or one that can be
repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, Unreachable
from kilo.fle.cipher import FieldCipher
from kilo.fle.keytable import DATA
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation.check import held_by_dead_letters, remaining
from kilo.fle.rotation.plan import Flag, fields_of
from kilo.fle.rotation.record import Rotation, find, forget_scope, move, require, retire, switch

if TYPE_CHECKING:
    from collections.abc import Generator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Endings:
    """Ends of one stage's rotations; see :class:`kilo.fle.rotation.steps.Rotations`."""

    def __init__(self, outputs: StackOutputs, database_url: str, cipher: FieldCipher) -> None:
        self.outputs, self.url, self.cipher = outputs, database_url, cipher

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
            if rotation.new_key_id is not None and rotation.purpose == DATA:
                connection.execute(
                    "INSERT INTO fle_tenants (tenant, minimum_version)"
                    " SELECT tenant, version FROM fle_keys WHERE id = %s"
                    " ON CONFLICT (tenant) DO UPDATE SET minimum_version = excluded.minimum_version",
                    (rotation.new_key_id,),
                )
            connection.execute(
                "UPDATE fle_keys SET state = 'retired', destroy_after = now() + make_interval(days => %s)"
                " WHERE tenant = %s AND purpose = %s AND state = 'retiring'",
                (rotation.plan.destroy_after_days, tenant, rotation.purpose),
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
                if rotation.old_key_id is not None and rotation.plan.kind in {"rekey", "reindex"}:
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
            if rotation.new_key_id is not None and rotation.plan.kind in {"rekey", "reindex"}:
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
        if rotation.purpose == DATA and (
            held := held_by_dead_letters(connection, [leaving] if leaving else [])
        ):
            msg = (
                f"{held} dead letters hold values under the {which} key: replay or discard them (`kilo dlq`)"
            )
            raise CheckFailed(msg)
