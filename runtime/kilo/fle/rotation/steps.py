"""The steps of a rotation: plan, approve, run, pause, verify; and its endings.

Every step is one transaction that changes the state and appends the audit entry, or one that can be
repeated. A step that was killed is given again; two that run at once take turns on the rotation's row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import EncryptedTable
from kilo.errors import CheckFailed
from kilo.fle.audit.log import append
from kilo.fle.formats import V2
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation import lookalikes, scope_changes
from kilo.fle.rotation.backfill import Backfill, Progress, Work, worker_connection
from kilo.fle.rotation.check import check_keys, decrypt_all, evidence_key, goal_of
from kilo.fle.rotation.columns import Columns
from kilo.fle.rotation.convert import Converter
from kilo.fle.rotation.endings import Endings
from kilo.fle.rotation.evidence import SHOWN
from kilo.fle.rotation.plan import LEAST_SETTLE_SECONDS, Flag, Kind, Plan, make_plan
from kilo.fle.rotation.record import Rotation, find, move, record, require, switch
from kilo.fle.rotation.rewrite import Rewriter, ValueRewriter
from kilo.fle.rotation.tokens import TokenColumns, TokenRewriter, check_tokens

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Rotations(Endings):
    """Rotations of one stage.

    Args:
        outputs: the stage.
        database_url: PostgreSQL with the key table and the encrypted tables, as a role that may change both.
        cipher: bound to any table; its keys are used.
    """

    def plan(
        self,
        tenant: str,
        kind: Kind,
        requester: str,
        key: Ed25519PrivateKey,
        settle_seconds: int = LEAST_SETTLE_SECONDS,
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
                "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state, signature)"
                " VALUES (%s, %s, %s, %s, 'planned', %s) ON CONFLICT DO NOTHING RETURNING plan_hash",
                (plan.digest(), tenant, plan.canonical(), requester, signed.signature),
            ).fetchone()
            if made is None:
                msg = f"tenant {tenant} has an open rotation already; finalize it or roll it back first"
                raise CheckFailed(msg)
            details = {
                "plan": plan.digest(),
                "kind": kind,
                "content": plan.model_dump(mode="json"),
                "signature": signed.signature.hex(),
            }
            append(connection, requester, "plan", f"tenant/{tenant}", details)
        return plan

    def approve(self, plan_hash: str, approval: approvals.Approval, *, rollback: bool = False) -> int:
        """Add an approval of the plan, or of rolling it back; returns how many there are that count.

        A plan may be approved until it ends: an approval by somebody who left is made up for by another's.
        """
        action = "approve-rollback" if rollback else "approve"
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(
                rotation, *(() if rollback else ("planned",)), "announced", "running", "paused", "verified"
            )
            public = approvals.public_key_of(self.outputs, approval.principal)
            requester = rotation.plan.requester
            if not rollback and approvals.is_same_person(self.outputs, approval.principal, requester):
                msg = f"{approval.principal} requested {rotation.name} and can't approve it"
                raise CheckFailed(msg)
            approvals.verify(self.outputs, action, rotation.plan_hash, approval)
            if approvals.keep(connection, rotation.plan_hash, action, approval, public):
                details = {"signature": approval.signature.hex()}
                record(connection, rotation, approval.principal, action, details)
            but = "" if rollback else requester
            return len(approvals.count(connection, self.outputs, rotation, action, but)[0])

    def start(self, plan_hash: str, actor: str) -> Rotation:
        """Take the next step that changes what writers and readers do, or resume; the rotation as it is then.

        An adoption or a release is announced first: readers must take plain values before the first one
        changes. It goes on when it is given again after the settle time.
        """
        Flag(self.outputs).check()
        with self.connect() as connection:
            rotation = find(connection, plan_hash)
            require(rotation, "planned", "announced", "running", "paused", "rolling-back")
            if rotation.state == "rolling-back":
                self._check_rolling_back(connection, rotation)
            else:
                approvals.check_plan(connection, self.outputs, rotation)
        moves_scope = rotation.plan.kind in {"adopt", "release"}
        if rotation.state == "planned" and moves_scope:
            rotation = self._announce(rotation, actor)
        if rotation.state == "announced" and not rotation.settled:
            msg = (
                f"{rotation.name} is announced: readers learn of it within "
                f"{rotation.plan.settle_seconds} s; run it again then"
            )
            raise CheckFailed(msg)
        if rotation.state in {"planned", "announced"}:
            self._switch_forward(rotation, actor)
        elif rotation.state == "paused":
            self._set(rotation, ("paused",), "running", actor, "resume")
        if rotation.plan.kind == "reindex":
            self._activate_index(rotation, actor)
        self.cipher.keyring.clear()
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            adopting = rotation.state == "running" and rotation.plan.kind == "adopt"
            # Fields that came into the configuration since are adopted as well.
            if adopting and (more := self.configured(rotation) - rotation.scope):
                scope_changes.change(connection, rotation, more)
                record(connection, rotation, actor, "adopt-more", {"fields": sorted(more)})
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
        with worker_connection(self.url) as connection:

            def may_go_on() -> bool:
                return find(connection, plan_hash).state == rotation.state

            check_keys(connection, rotation)
            for spec in rotation.plan.tables:
                work = Work(rotation.plan_hash, direction, batch_rows, rows_per_second)
                rewriter = self._rewriter(connection, rotation, spec)
                worker = Backfill(connection, rewriter, work, may_go_on)
                done = worker.run(on_batch) and done
                failed += sorted(worker.progress.failed)
        if done:
            self._backfilled(rotation, actor, len(failed))
        return done, failed

    def _rewriter(
        self, connection: psycopg.Connection[TupleRow], rotation: Rotation, spec: EncryptedTable
    ) -> Rewriter:
        cipher = self.cipher.for_table(spec.context)
        if rotation.plan.kind == "reindex":
            return TokenRewriter(TokenColumns.load(connection, spec), cipher, rotation)
        key = evidence_key(self.cipher, rotation)
        plain = lookalikes.taken(connection, self.outputs, rotation)
        converter = Converter(cipher, rotation.plan.tenant, goal_of(rotation), key, plain)
        return ValueRewriter(Columns.load(connection, spec), converter)

    def _check(
        self, connection: psycopg.Connection[TupleRow], rotation: Rotation
    ) -> tuple[dict[str, int], list[str], dict[str, Any]]:
        """Counts, places of what is otherwise than it should be, and details for the audit log."""
        if rotation.plan.kind == "reindex":
            counts, wrong = check_tokens(connection, self.cipher, rotation)
            return counts, wrong, dict(counts)
        plain = lookalikes.taken(connection, self.outputs, rotation)
        found = decrypt_all(connection, self.cipher, rotation, plain)
        columns = {name: each.as_details() for name, each in sorted(found.columns.items())}
        return found.counts(), found.otherwise(), {**found.counts(), "columns": columns}

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
            approvals.check_plan(connection, self.outputs, rotation)
            self.check_configuration(rotation)
            check_keys(connection, rotation)
            counts, wrong, details = self._check(connection, rotation)
            left = self.left(connection, rotation)
        if wrong:
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
                details=details,
            )
        return counts

    def take_as_plain(
        self, plan_hash: str, place: lookalikes.Place, principal: str, key: Ed25519PrivateKey
    ) -> int:
        """Sign that a value which looks encrypted, and opens under no key, is plain; how many have by now.

        It counts once two others than the plan's requester have; :meth:`run` does as they say.
        """
        with self.connect() as connection:
            rotation = find(connection, plan_hash, lock=True)
            require(rotation, "running", "paused", "rolling-back")
            evidence = evidence_key(self.cipher, rotation)
            return lookalikes.take_as_plain(
                connection, self.outputs, self.cipher, rotation, place, evidence, (principal, key)
            )

    def _announce(self, rotation: Rotation, actor: str) -> Rotation:
        with self.connect() as connection:
            locked = find(connection, rotation.plan_hash, lock=True)
            if locked.state != "planned":
                return locked
            signed = approvals.check_plan(connection, self.outputs, locked)
            scope_changes.announce(connection, locked, self.configured(locked))
            connection.execute(
                "UPDATE fle_rotations SET switched_at = now() WHERE plan_hash = %s", (locked.plan_hash,)
            )
            details = {"fields": sorted(locked.fields), "approvals": signed}
            move(connection, locked, state="announced", actor=actor, action="announce", details=details)
        with self.connect() as connection:
            return find(connection, rotation.plan_hash)

    def _switch_forward(self, rotation: Rotation, actor: str) -> None:
        tenant, kind = rotation.plan.tenant, rotation.plan.kind
        with self.connect() as connection:
            # Made under the lock: of two runs at once the second would leave a key that nobody uses.
            locked = find(connection, rotation.plan_hash, lock=True)
            if locked.state != rotation.state:
                return
            signed = approvals.check_plan(connection, self.outputs, locked)
            changed = self._change_scope(connection, locked) if kind in {"adopt", "release"} else []
            old, new = self._keys_of(connection, locked)
            # Searches must know a new index key before the first token under it is written.
            if new is not None and kind != "reindex":
                switch(connection, tenant, old, new)
            connection.execute(
                "UPDATE fle_rotations SET old_key_id = %s, new_key_id = %s, switched_at = now()"
                " WHERE plan_hash = %s",
                (old, new, rotation.plan_hash),
            )
            details = {"approvals": signed, "old_key_id": old, "new_key_id": new, "fields": changed}
            move(connection, locked, state="running", actor=actor, action="run", details=details)

    def _keys_of(
        self, connection: psycopg.Connection[TupleRow], locked: Rotation
    ) -> tuple[int | None, int | None]:
        """The key that values lie under, and the one that they shall lie under; made when it is a new one."""
        tenant, kind = locked.plan.tenant, locked.plan.kind
        row = connection.execute(
            "SELECT id, format FROM fle_keys WHERE tenant = %s AND purpose = %s AND state = 'active'",
            (tenant, locked.purpose),
        ).fetchone()
        if row is None and kind != "adopt":
            msg = f"tenant {tenant} has no {locked.purpose} key yet; there is nothing to rotate"
            raise CheckFailed(msg)
        if kind == "release":
            return (row[0] if row else None), None
        if kind == "adopt" and row is not None:
            if row[1] != V2:
                msg = f"tenant {tenant} encrypts under a key of format v1; rotate to v2 (--kind rekey) first"
                raise CheckFailed(msg)
            return None, row[0]
        return (row[0] if row else None), self._pending_key(tenant, locked.purpose)

    def _change_scope(self, connection: psycopg.Connection[TupleRow], locked: Rotation) -> list[str]:
        """Let writers encrypt the fields that are adopted, or no longer those that are released."""
        tenant, configured = locked.plan.tenant, self.configured(locked)
        if locked.plan.kind == "release":
            self.check_left_configuration(locked)
            scope_changes.change(connection, locked, locked.fields & locked.scope)
            return sorted(locked.fields & locked.scope)
        if not configured:
            msg = (
                f"tenant {tenant} has none of the plan's fields in its encrypted_fields: "
                "add them to the stage's configuration and run `pulumi up` first"
            )
            raise CheckFailed(msg)
        scope_changes.change(connection, locked, configured)
        return sorted(configured)

    def _activate_index(self, rotation: Rotation, actor: str) -> None:
        """Point writers at the new index key, once every process must have it to search by."""
        with self.connect() as connection:
            locked = find(connection, rotation.plan_hash, lock=True)
            row = connection.execute(
                "SELECT FROM fle_keys WHERE id = %s AND state = 'pending'", (locked.new_key_id,)
            ).fetchone()
            if row is None or locked.state != "running":
                return
            if not locked.settled:
                msg = (
                    f"plan {locked.plan_hash[:12]}: searches learn of the new index key within "
                    f"{locked.plan.settle_seconds} s of its making; run it later"
                )
                raise CheckFailed(msg)
            switch(connection, locked.plan.tenant, locked.old_key_id, locked.new_key_id)
            connection.execute(
                "UPDATE fle_rotations SET switched_at = now() WHERE plan_hash = %s", (locked.plan_hash,)
            )
            record(connection, locked, actor, "activate", {})

    def _pending_key(self, tenant: str, purpose: str) -> int:
        rows = self.cipher.keyring.table.read(tenant)
        # One left by a run that died is taken up: the tenant has one open rotation, this one.
        left = next((key.id for key in rows.keys if key.purpose == purpose and key.state == "pending"), None)
        return left if left is not None else self.cipher.keyring.create(tenant, purpose, "pending")

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
