"""The consumer's own tables: inbox, position, and dead letters.

Everything here runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from kilo.bus import Received
from kilo.consumer.event import Envelope
from kilo.database.lease import Lease

_CLAIM = """
INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)
SELECT %s, claimed.* FROM json_to_recordset(%s::json)
    AS claimed (fingerprint text, created_at timestamptz, tenant text, publisher text)
ON CONFLICT (consumer, fingerprint, created_at, tenant) DO NOTHING RETURNING tenant, fingerprint, created_at
"""
# What begins a batch, in one round trip: fence, position, whose keys are blocked, and the claim of the rest.
# The lease's row is locked before anything is kept, since without it nothing is written.
_TAKE = """
WITH lease AS MATERIALIZED (
    SELECT FROM leases WHERE name = %(lease)s AND epoch = %(epoch)s FOR SHARE
), moved AS (
    INSERT INTO consumer_positions (consumer, source, position, stored_at)
    SELECT %(consumer)s::text, %(source)s::text, %(position)s::bigint, %(stored_at)s::float8 FROM lease
    ON CONFLICT (consumer, source) DO UPDATE SET position = excluded.position,
        stored_at = excluded.stored_at, updated_at = now()
), given AS (
    SELECT * FROM json_to_recordset(%(events)s::json) AS one
        (tenant text, aggregate text, aggregate_id text, fingerprint text, created_at timestamptz,
         publisher text)
), blocked AS MATERIALIZED (
    SELECT DISTINCT d.tenant, d.aggregate, d.aggregate_id FROM dead_letters d
    JOIN given USING (tenant, aggregate, aggregate_id)
    WHERE d.consumer = %(consumer)s AND d.holds
        AND d.state IN ('retrying', 'parked', 'waiting', 'replaying')
), claimed AS (
    INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)
    SELECT %(consumer)s::text, fingerprint, created_at, tenant, publisher FROM lease, given
    WHERE NOT EXISTS (SELECT FROM blocked WHERE blocked.tenant = given.tenant
        AND blocked.aggregate = given.aggregate AND blocked.aggregate_id = given.aggregate_id)
    ON CONFLICT (consumer, fingerprint, created_at, tenant) DO NOTHING
    RETURNING tenant, fingerprint, created_at
)
SELECT NULL::text, NULL::text, NULL::text, NULL::timestamptz FROM lease
UNION ALL SELECT tenant, aggregate, aggregate_id, NULL FROM blocked
UNION ALL SELECT tenant, fingerprint, NULL, created_at FROM claimed
"""
_COUNT_DUPLICATES = """
UPDATE inbox SET duplicates = duplicates + again.times
FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::integer[])
    AS again (tenant, fingerprint, created_at, times)
WHERE inbox.consumer = %s AND inbox.fingerprint = again.fingerprint AND inbox.created_at = again.created_at
    AND inbox.tenant = again.tenant
"""
_MOVE = """
INSERT INTO consumer_positions (consumer, source, position, stored_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (consumer, source) DO UPDATE SET position = excluded.position, stored_at = excluded.stored_at,
    updated_at = now()
"""
_KEEP = """
INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind, payload,
    headers, traceparent, created_at, error, stack_digest, attempts, next_at, position, holds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s * interval '1 s', %s, %s)
ON CONFLICT (consumer, tenant, fingerprint, created_at) DO UPDATE SET state = excluded.state,
    error = excluded.error, stack_digest = excluded.stack_digest, payload = excluded.payload,
    attempts_before = dead_letters.attempts, attempts = dead_letters.attempts + excluded.attempts,
    next_at = excluded.next_at, last_at = now(), headers = excluded.headers, position = excluded.position
WHERE dead_letters.state IN ('replayed', 'discarded')
"""


class Taken(NamedTuple):
    """What of a batch is to be handled.

    Attributes:
        blocked: ordering keys that have an open dead letter, behind which later events are held.
        fresh: occurrences that were not in the inbox and are now; others that are not held are duplicates.
    """

    blocked: set[tuple[str, str, str]]
    fresh: set[tuple[str, str, datetime]]


async def take(  # noqa: PLR0917  what one statement is about
    connection: AsyncConnection[Any],
    lease: Lease,
    consumer: str,
    source: str,
    to: Received,
    events: Sequence[Envelope],
) -> Taken:
    """Begin the batch ``events`` in the transaction that is open, in the name of ``lease``.

    ``consumer`` has read ``source`` up to ``to`` then, and the transaction can't be committed until
    :func:`allow_commit`.

    Raises:
        LeaseLost: it was taken over, and nothing is written.
    """
    # As JSON: the driver makes an array element by element, which took a sixth of the consumer's time.
    rows = [
        {
            "tenant": each.tenant,
            "fingerprint": each.fingerprint,
            "created_at": each.created_at.isoformat(),
            "publisher": each.publisher,
            "aggregate": each.aggregate,
            "aggregate_id": each.aggregate_id,
        }
        for each in events
    ]
    values = {
        "lease": lease.name,
        "epoch": lease.epoch,
        "consumer": consumer,
        "source": source,
        "position": to.position,
        "stored_at": to.stored_at,
        "events": json.dumps(rows),
    }
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(_TAKE, values, prepare=True)
    taken, fenced = Taken(set(), set()), False
    for tenant, second, aggregate_id, created_at in await cursor.fetchall():
        if tenant is None:
            fenced = True
        elif created_at is None:
            taken.blocked.add((tenant, second, aggregate_id))
        else:
            taken.fresh.add((tenant, second, created_at))
    lease.confirm(found=fenced)
    free = [each for each in events if each.ordering_key not in taken.blocked] if taken.blocked else events
    await _count_duplicates(connection, consumer, free, taken.fresh)
    return taken


async def claim(
    connection: AsyncConnection[Any], consumer: str, events: Sequence[Envelope]
) -> set[tuple[str, str, datetime]]:
    """Write inbox rows and return the occurrences that were not there; the others are duplicates."""
    # As JSON: the driver makes an array element by element, which took a sixth of the consumer's time.
    rows = [
        {
            "fingerprint": each.fingerprint,
            "created_at": each.created_at.isoformat(),
            "tenant": each.tenant,
            "publisher": each.publisher,
        }
        for each in events
    ]
    cursor = await connection.execute(_CLAIM, (consumer, json.dumps(rows)), prepare=True)
    fresh: set[tuple[str, str, datetime]] = set(await cursor.fetchall())
    await _count_duplicates(connection, consumer, events, fresh)
    return fresh


async def _count_duplicates(
    connection: AsyncConnection[Any],
    consumer: str,
    events: Sequence[Envelope],
    fresh: set[tuple[str, str, datetime]],
) -> None:
    if len(fresh) < len(events):
        deliveries = Counter(each.occurrence for each in events)
        again = [
            (*occurrence, times - (occurrence in fresh))
            for occurrence, times in deliveries.items()
            if times > (occurrence in fresh)
        ]
        await connection.execute(_COUNT_DUPLICATES, (*map(list, zip(*again, strict=True)), consumer))


async def position(
    connection: AsyncConnection[Any], consumer: str, source: str
) -> tuple[int, float | None] | None:
    """How far ``consumer`` has read ``source``, and when the last message was stored; none if it is new."""
    cursor = await connection.execute(
        "SELECT position, stored_at FROM consumer_positions WHERE consumer = %s AND source = %s",
        (consumer, source),
    )
    row = await cursor.fetchone()
    return (int(row[0]), row[1]) if row else None


async def begin(connection: AsyncConnection[Any], consumer: str, source: str, after: int) -> None:
    """Remember that ``consumer``, which is new, reads ``source`` after the position ``after``."""
    await connection.execute(
        "INSERT INTO consumer_positions (consumer, source, position) VALUES (%s, %s, %s)"
        " ON CONFLICT (consumer, source) DO NOTHING",
        (consumer, source, after),
    )


async def move(connection: AsyncConnection[Any], consumer: str, source: str, to: Received) -> None:
    """Remember that ``consumer`` has read everything up to ``to``.

    From then on the transaction can't be committed until :func:`allow_commit`.
    """
    await connection.execute(_MOVE, (consumer, source, to.position, to.stored_at), prepare=True)


async def forbid_commit(connection: AsyncConnection[Any], consumer: str, source: str) -> None:
    """As :func:`move` does, where there is nothing to move to."""
    await connection.execute(
        "UPDATE consumer_positions SET position = position WHERE consumer = %s AND source = %s",
        (consumer, source),
        prepare=True,
    )


async def allow_commit(connection: AsyncConnection[Any]) -> None:
    """Let the transaction be committed: every handler of it has returned."""
    await connection.execute("SELECT set_config('kilo.consumer_commits', 'on', true)", prepare=True)


async def keep(
    connection: AsyncConnection[Any],
    consumer: str,
    one: Envelope,
    *,
    state: str,
    error: str = "",
    stack_digest: str = "",
    attempts: int = 0,
    pause_seconds: float | None = None,
    holds: bool = True,
) -> None:
    """Keep ``one`` as a dead letter: to retry, parked for a person, or held behind an earlier one."""
    await connection.execute(
        _KEEP,
        (
            consumer,
            state,
            one.fingerprint,
            one.tenant,
            one.aggregate,
            one.aggregate_id,
            one.kind,
            one.raw,
            headers_json(one.headers),
            _storable(one.headers["traceparent"]) if "traceparent" in one.headers else None,
            one.created_at,
            error,
            stack_digest,
            attempts,
            pause_seconds,
            one.position,
            holds,
        ),
    )


def headers_json(headers: Mapping[str, str]) -> str:
    """``headers`` as JSON that jsonb takes: it can hold neither U+0000 nor lone surrogates."""
    return json.dumps({_storable(name): _storable(value) for name, value in headers.items()})


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
