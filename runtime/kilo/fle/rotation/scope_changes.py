"""What a rotation says of its own fields to writers and readers, in the table ``fle_scope``.

Two things are said of a field: whether writers encrypt it whatever the stage's configuration says, and
whether readers take plain values of it too. ``docs/field-encryption-rotation.md`` has them by state.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.rotation.record import Rotation

_SAY = """
INSERT INTO fle_scope (tenant, field, encrypted, plain_accepted)
SELECT %(tenant)s, unnest(%(fields)s::text[]), %(encrypted)s, %(accepted)s
ON CONFLICT (tenant, field)
DO UPDATE SET encrypted = excluded.encrypted, plain_accepted = excluded.plain_accepted
"""


def announce(
    connection: psycopg.Connection[TupleRow], rotation: Rotation, configured: frozenset[str]
) -> None:
    """Let readers take plain values of the fields; writers go on as they did.

    ``configured`` are the plan's fields that the configuration encrypts.
    """
    own = rotation.fields & rotation.scope
    if rotation.plan.kind == "release":
        # The configuration still names them now; rolling back must know what to encrypt again.
        _say(connection, rotation, own | configured, encrypted=True, accepted=True)
    else:
        _say(connection, rotation, own, encrypted=True, accepted=True)
        _say(connection, rotation, rotation.fields - own, encrypted=False, accepted=True)
    connection.execute(
        "UPDATE fle_rotations SET scope_before = %s WHERE plan_hash = %s",
        (
            sorted(rotation.scope | (configured if rotation.plan.kind == "release" else set())),
            rotation.plan_hash,
        ),
    )


def change(connection: psycopg.Connection[TupleRow], rotation: Rotation, fields: Iterable[str]) -> None:
    """Let writers encrypt ``fields`` (an adoption), or no longer (a release)."""
    _say(connection, rotation, fields, encrypted=rotation.plan.kind == "adopt", accepted=True)


def change_back(connection: psycopg.Connection[TupleRow], rotation: Rotation) -> None:
    """Let writers do as they did before the rotation."""
    before = rotation.fields & rotation.before
    _say(connection, rotation, before, encrypted=True, accepted=True)
    if rotation.plan.kind == "adopt":
        _say(connection, rotation, rotation.fields - before, encrypted=False, accepted=True)


def settle(connection: psycopg.Connection[TupleRow], rotation: Rotation) -> None:
    """At the end: readers take no plain values of what writers encrypt, and what they don't is not noted."""
    place = (rotation.plan.tenant, sorted(rotation.fields))
    connection.execute(
        "DELETE FROM fle_scope WHERE tenant = %s AND field = ANY(%s) AND NOT encrypted AND plain_accepted",
        place,
    )
    connection.execute(
        "UPDATE fle_scope SET plain_accepted = false"
        " WHERE tenant = %s AND field = ANY(%s) AND plain_accepted",
        place,
    )


def _say(
    connection: psycopg.Connection[TupleRow],
    rotation: Rotation,
    fields: Iterable[str],
    *,
    encrypted: bool,
    accepted: bool,
) -> None:
    connection.execute(
        _SAY,
        {
            "tenant": rotation.plan.tenant,
            "fields": sorted(fields),
            "encrypted": encrypted,
            "accepted": accepted,
        },
    )
