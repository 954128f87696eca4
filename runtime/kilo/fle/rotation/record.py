"""A rotation as the database has it, and moving it from state to state with its audit entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append
from kilo.fle.keytable import DATA, INDEX
from kilo.fle.rotation.plan import Plan, digest_of, fields_of


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotation.

    ``settled`` is whether every process must have seen the last change of the key table: the switch to
    another key or, before it, the plan. ``drained`` is whether, besides, whatever was written before it and
    lies where rotation can't reach it, as on the bus, must be gone. ``scope`` are the tenant's fields that
    writers encrypt, ``before`` those that they did before the rotation changed any. ``signature`` is the
    requester's under the plan.
    """

    plan: Plan
    plan_hash: str
    state: str
    old_key_id: int | None
    new_key_id: int | None
    settled: bool
    drained: bool
    scope: frozenset[str]
    before: frozenset[str]
    signature: bytes

    @property
    def purpose(self) -> str:
        """Of the keys that it rotates."""
        return INDEX if self.plan.kind == "reindex" else DATA

    @property
    def fields(self) -> frozenset[str]:
        """The plan's own fields."""
        return fields_of(self.plan.tables)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"plan {self.plan_hash[:12]}"


_FIND = """
SELECT plan, plan_hash, state, old_key_id, new_key_id,
       now() - coalesce(switched_at, created_at)
       >= make_interval(secs => (plan::jsonb ->> 'settle_seconds')::int),
       now() - coalesce(switched_at, created_at)
       >= make_interval(secs => (plan::jsonb ->> 'settle_seconds')::int,
                        days => (plan::jsonb ->> 'in_flight_days')::int),
       ARRAY(SELECT field FROM fle_scope s WHERE s.tenant = r.tenant AND s.encrypted),
       coalesce(scope_before, '{}'), coalesce(signature, '')
FROM fle_rotations r WHERE plan_hash LIKE %s || '%%'
"""


def find(connection: psycopg.Connection[TupleRow], plan_hash: str, *, lock: bool = False) -> Rotation:
    """The rotation whose plan's hash begins with ``plan_hash`` (8 characters or more).

    Raises:
        BadInput: there is none, or more than one.
        CheckFailed: the stored plan does not have its hash.
    """
    if len(plan_hash) < 8 or not all(each in "0123456789abcdef" for each in plan_hash):
        msg = f"PLAN: {plan_hash!r} is no plan hash; give 8 or more of its hexadecimal characters"
        raise BadInput(msg)
    rows = connection.execute(_FIND + (" FOR UPDATE" if lock else ""), (plan_hash,)).fetchall()
    if len(rows) != 1:
        msg = f"PLAN: {'no' if not rows else 'more than one'} rotation's plan hash begins with {plan_hash}"
        raise BadInput(msg)
    text, digest, state, old, new, settled, drained, scope, before, signature = rows[0]
    if digest_of(text) != digest:
        msg = f"plan {digest[:12]}: the stored plan was altered; its hash is {digest_of(text)[:12]}"
        raise CheckFailed(msg)
    plan = Plan.parse(text)
    return Rotation(
        plan,
        digest,
        state,
        old,
        new,
        settled,
        drained,
        frozenset(scope),
        frozenset(before),
        bytes(signature),
    )


def require(rotation: Rotation, *states: str) -> None:
    """Raise :class:`CheckFailed` unless the rotation is in one of ``states``."""
    if rotation.state not in states:
        msg = f"plan {rotation.plan_hash[:12]} is {rotation.state}; this needs it {' or '.join(states)}"
        raise CheckFailed(msg)


def move(
    connection: psycopg.Connection[TupleRow],
    rotation: Rotation,
    *,
    state: str,
    actor: str,
    action: str,
    details: Mapping[str, Any],
) -> None:
    """Set the state and append the audit entry, in the caller's transaction."""
    connection.execute(
        "UPDATE fle_rotations SET state = %(state)s, finished_at ="
        " CASE WHEN %(state)s IN ('finalized', 'rolled-back') THEN now() END WHERE plan_hash = %(plan)s",
        {"state": state, "plan": rotation.plan_hash},
    )
    if state in {"finalized", "rolled-back"}:
        # What it sums up to is in the log; the digests of single values have served.
        connection.execute(
            "UPDATE fle_rotation_batches SET evidence = NULL WHERE plan_hash = %s", (rotation.plan_hash,)
        )
    record(connection, rotation, actor, action, {**details, "state": state})


def record(
    connection: psycopg.Connection[TupleRow],
    rotation: Rotation,
    actor: str,
    action: str,
    details: Mapping[str, Any],
) -> None:
    """Append an audit entry about ``rotation``."""
    keys = {"old_key_id": rotation.old_key_id, "new_key_id": rotation.new_key_id}
    subject = f"tenant/{rotation.plan.tenant}"
    append(connection, actor, action, subject, {"plan": rotation.plan_hash, **keys, **details})


def switch(
    connection: psycopg.Connection[TupleRow], tenant: str, retire: int | None, activate: int | None
) -> None:
    """Make ``activate`` the tenant's active data key and ``retire`` a key that is only read."""
    if retire is not None:
        connection.execute(
            "UPDATE fle_keys SET state = 'retiring' WHERE id = %s AND tenant = %s AND state = 'active'",
            (retire, tenant),
        )
    if activate is not None:
        connection.execute(
            "UPDATE fle_keys SET state = 'active', activated_at = coalesce(activated_at, now())"
            " WHERE id = %s AND tenant = %s AND state IN ('pending', 'retiring')",
            (activate, tenant),
        )


def retire(
    connection: psycopg.Connection[TupleRow], tenant: str, key_id: int, destroy_after_days: int
) -> None:
    """Refuse a key from now on, and schedule the destruction of its wraps."""
    connection.execute(
        "UPDATE fle_keys SET state = 'retired', destroy_after = now() + make_interval(days => %s)"
        " WHERE id = %s AND tenant = %s AND state IN ('retiring', 'pending')",
        (destroy_after_days, key_id, tenant),
    )
