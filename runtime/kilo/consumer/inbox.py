"""The consumer's own tables: inbox, position, and dead letters.

Everything here runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from kilo.bus import Received
from kilo.consumer.event import Envelope

_CLAIM = """
INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)
SELECT %s, claimed.* FROM json_to_recordset(%s::json)
    AS claimed (fingerprint text, created_at timestamptz, tenant text, publisher text)
ON CONFLICT (consumer, fingerprint, created_at, tenant) DO NOTHING RETURNING tenant, fingerprint, created_at
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
    if len(fresh) < len(events):
        deliveries = Counter(each.occurrence for each in events)
        again = [
            (*occurrence, times - (occurrence in fresh))
            for occurrence, times in deliveries.items()
            if times > (occurrence in fresh)
        ]
        await connection.execute(_COUNT_DUPLICATES, (*map(list, zip(*again, strict=True)), consumer))
    return fresh


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


async def blocked_keys(
    connection: AsyncConnection[Any], consumer: str, events: Sequence[Envelope]
) -> set[tuple[str, str, str]]:
    """Ordering keys of ``events`` that have an open dead letter, behind which later events are held."""
    cursor = await connection.execute(
        "SELECT DISTINCT tenant, aggregate, aggregate_id FROM dead_letters WHERE consumer = %s AND holds"
        " AND state IN ('retrying', 'parked', 'waiting', 'replaying')"
        " AND (tenant, aggregate, aggregate_id) IN"
        " (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]))",
        (
            consumer,
            [each.tenant for each in events],
            [each.aggregate for each in events],
            [each.aggregate_id for each in events],
        ),
        prepare=True,
    )
    return set(await cursor.fetchall())


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
