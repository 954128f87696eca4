"""The consumer's own tables: inbox, position, and what is set aside.

Everything here runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection

from kilo.bus import Received
from kilo.consumer.event import Envelope

_CLAIM = """
INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)
SELECT %s, claimed.* FROM json_to_recordset(%s::json)
    AS claimed (fingerprint text, created_at timestamptz, tenant text, publisher text)
ON CONFLICT (consumer, fingerprint, created_at) DO NOTHING RETURNING fingerprint
"""
_COUNT_DUPLICATES = """
UPDATE inbox SET duplicates = duplicates + again.times
FROM unnest(%s::text[], %s::timestamptz[], %s::integer[]) AS again (fingerprint, created_at, times)
WHERE inbox.consumer = %s AND inbox.fingerprint = again.fingerprint AND inbox.created_at = again.created_at
"""
_MOVE = """
INSERT INTO consumer_positions (consumer, source, position, stored_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (consumer, source) DO UPDATE SET position = excluded.position, stored_at = excluded.stored_at,
    updated_at = now()
"""
_SET_ASIDE = """
INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind, payload,
    headers, traceparent, created_at, error, stack_digest, attempts, next_at, position, holds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s * interval '1 s', %s, %s)
ON CONFLICT (consumer, fingerprint) DO UPDATE SET state = excluded.state, error = excluded.error,
    stack_digest = excluded.stack_digest, attempts = dead_letters.attempts + excluded.attempts,
    next_at = excluded.next_at, last_at = now(), headers = excluded.headers
WHERE dead_letters.state IN ('replayed', 'discarded')
"""


async def claim(connection: AsyncConnection[Any], consumer: str, events: Sequence[Envelope]) -> set[str]:
    """Write inbox rows and return the fingerprints that were not there; the others are duplicates."""
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
    fresh = {row[0] for row in await cursor.fetchall()}
    if len(fresh) < len(events):
        deliveries = Counter((each.fingerprint, each.created_at) for each in events)
        again = [
            (fingerprint, created_at, times - (fingerprint in fresh))
            for (fingerprint, created_at), times in deliveries.items()
            if times > (fingerprint in fresh)
        ]
        await connection.execute(_COUNT_DUPLICATES, (*map(list, zip(*again, strict=True)), consumer))
    return fresh


async def position(connection: AsyncConnection[Any], consumer: str, source: str) -> tuple[int, float | None]:
    """How far ``consumer`` has read ``source``, 0 at first, and when the last message was stored there."""
    cursor = await connection.execute(
        "SELECT position, stored_at FROM consumer_positions WHERE consumer = %s AND source = %s",
        (consumer, source),
    )
    row = await cursor.fetchone()
    return (int(row[0]), row[1]) if row else (0, None)


async def move(connection: AsyncConnection[Any], consumer: str, source: str, to: Received) -> None:
    """Remember that ``consumer`` has read everything up to ``to``."""
    await connection.execute(_MOVE, (consumer, source, to.position, to.stored_at), prepare=True)


async def blocked_lanes(
    connection: AsyncConnection[Any], consumer: str, events: Sequence[Envelope]
) -> set[tuple[str, str]]:
    """Aggregates of ``events`` that have something set aside, behind which they must wait."""
    cursor = await connection.execute(
        "SELECT DISTINCT aggregate, aggregate_id FROM dead_letters WHERE consumer = %s AND holds"
        " AND state IN ('retrying', 'parked', 'waiting', 'replaying')"
        " AND (aggregate, aggregate_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        (consumer, [each.aggregate for each in events], [each.aggregate_id for each in events]),
        prepare=True,
    )
    return {(row[0], row[1]) for row in await cursor.fetchall()}


async def set_aside(
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
    """Keep ``one`` for later: to try again, for a person, or behind an earlier one of its aggregate."""
    await connection.execute(
        _SET_ASIDE,
        (
            consumer,
            state,
            one.fingerprint,
            one.tenant,
            one.aggregate,
            one.aggregate_id,
            one.kind,
            one.raw,
            json.dumps(dict(one.headers)),
            one.headers.get("traceparent"),
            one.created_at,
            error[:2000],
            stack_digest,
            attempts,
            pause_seconds,
            one.position,
            holds,
        ),
    )


def stand_in(received: Received, stream: str) -> Envelope:
    """An envelope for a message that is no event, so that it can be kept and looked at."""
    headers = received.headers
    return Envelope(
        fingerprint=headers.get("fingerprint") or f"unreadable/{stream}/{received.position}",
        tenant=headers.get("tenant", "unknown"),
        aggregate=received.subject.rpartition(".")[2],
        aggregate_id=headers.get("aggregate-id") or f"unreadable-{received.position}",
        kind=headers.get("kind", "unreadable"),
        created_at=datetime.now(UTC),
        publisher=headers.get("publisher", "unknown"),
        position=received.position,
        headers=headers,
        raw=received.payload,
    )
