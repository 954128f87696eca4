"""The consumer's own tables: inbox, position, and dead letters.

Everything here runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection

from kilo.bus import Received
from kilo.consumer.event import Envelope, Occurrence

_HEADERS_MOST, _HEADER_CHARACTERS = 64, 4096

_CLAIM = """
INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)
SELECT %s, claimed.* FROM json_to_recordset(%s::json)
    AS claimed (fingerprint text, created_at timestamptz, tenant text, publisher text)
ON CONFLICT (consumer, tenant, fingerprint, created_at) DO NOTHING
RETURNING tenant, fingerprint, created_at
"""
_COUNT_DUPLICATES = """
UPDATE inbox SET duplicates = duplicates + again.times
FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::integer[])
    AS again (tenant, fingerprint, created_at, times)
WHERE inbox.consumer = %s AND inbox.tenant = again.tenant AND inbox.fingerprint = again.fingerprint
    AND inbox.created_at = again.created_at
"""
_MOVE = """
INSERT INTO consumer_positions (consumer, source, position, stored_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (consumer, source) DO UPDATE SET position = excluded.position, stored_at = excluded.stored_at,
    updated_at = now()
"""
_PARK = """
INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind, payload,
    headers, traceparent, created_at, error, stack_digest, attempts, next_at, position, holds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s * interval '1 s', %s, %s)
ON CONFLICT (consumer, tenant, fingerprint, created_at) DO UPDATE SET state = excluded.state,
    error = excluded.error, stack_digest = excluded.stack_digest,
    attempts = dead_letters.attempts + excluded.attempts,
    next_at = excluded.next_at, last_at = now(), headers = excluded.headers
WHERE dead_letters.state IN ('replayed', 'discarded')
"""


async def claim(
    connection: AsyncConnection[Any], consumer: str, events: Sequence[Envelope]
) -> set[Occurrence]:
    """Write inbox rows and return the events that were not there; the others are duplicates."""
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
    fresh: set[Occurrence] = {(row[0], row[1], row[2]) for row in await cursor.fetchall()}
    if len(fresh) < len(events):
        deliveries = Counter(each.occurrence for each in events)
        again = [
            (*occurrence, times - (occurrence in fresh))
            for occurrence, times in deliveries.items()
            if times > (occurrence in fresh)
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
    """Ordering keys of ``events`` of which an earlier event is parked or is being tried again."""
    cursor = await connection.execute(
        "SELECT DISTINCT tenant, aggregate, aggregate_id FROM dead_letters WHERE consumer = %s AND holds"
        " AND state IN ('retrying', 'parked', 'waiting', 'replaying') AND (tenant, aggregate, aggregate_id)"
        " IN (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]))",
        (
            consumer,
            [each.tenant for each in events],
            [each.aggregate for each in events],
            [each.aggregate_id for each in events],
        ),
        prepare=True,
    )
    return {(row[0], row[1], row[2]) for row in await cursor.fetchall()}


async def park(
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
        _PARK,
        (
            consumer,
            state,
            one.fingerprint,
            one.tenant,
            one.aggregate,
            one.aggregate_id,
            one.kind,
            one.raw,
            json.dumps(storable(one.headers)),
            storable(one.headers).get("traceparent"),
            one.created_at,
            error,
            stack_digest,
            attempts,
            pause_seconds,
            one.position,
            holds,
        ),
    )


def stand_in(received: Received, stream: str) -> Envelope:
    """An envelope for a message that is no event, so that it can be kept and looked at.

    Nothing of it is taken from the message, which somebody else wrote: its headers and payload are stored as
    they came, and it neither holds a tenant's events nor counts in a tenant's name.
    """
    return Envelope(
        fingerprint=f"unreadable/{stream}/{received.position}",
        tenant="unknown",
        aggregate="unreadable",
        aggregate_id=f"{stream}/{received.position}",
        kind="unreadable",
        created_at=datetime.fromtimestamp(max(received.stored_at, 0.0), UTC),
        publisher="worker",
        position=received.position,
        headers=received.headers,
        raw=received.payload,
    )


def storable(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` as PostgreSQL can store them: without NUL, which ``jsonb`` refuses, and of bounded size."""
    return {_text(name): _text(value) for name, value in list(headers.items())[:_HEADERS_MOST]}


def _text(value: str) -> str:
    return value[:_HEADER_CHARACTERS].replace("\x00", "\N{REPLACEMENT CHARACTER}")
