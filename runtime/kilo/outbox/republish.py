"""Publishes rows again that the stream has lost, and marks them.

They get new message ids, since the bus may still know the old ones, and keep their fingerprints. Oldest
first, so that order is kept among them. Bounded in bytes as well as rows, like the worker's batches.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError, Message, encode_headers, event_headers
from kilo.bus.cloudevents import SOURCE
from kilo.database.lease import Lease
from kilo.observe.metrics import OUTBOX_RECONCILED
from kilo.outbox.dispatched import CREATED_AT, SHOWN_CREATED_AT, mark_dispatched
from kilo.outbox.reader import LARGEST_PAYLOAD_BYTES

_log = logging.getLogger(__name__)
_reconciled = OUTBOX_RECONCILED.create(REGISTRY)

_BATCH = 2000
_BATCH_BYTES = 16 * 1024 * 1024

_SIZES = (
    f"SELECT id, coalesce(payload_bytes, {LARGEST_PAYLOAD_BYTES})"  # noqa: S608  a number of our own
    " FROM outbox WHERE id = ANY(%s) ORDER BY id"
).encode()
_ROWS = (
    f"SELECT id, {CREATED_AT}, {SHOWN_CREATED_AT}, fingerprint, aggregate, aggregate_id, kind,"  # noqa: S608
    " tenant, traceparent, payload::text FROM outbox WHERE id = ANY(%s) ORDER BY id"
)


class _Row(NamedTuple):
    id: int
    created_at: datetime | None
    shown_created_at: datetime
    fingerprint: str
    aggregate: str
    aggregate_id: str
    kind: str
    tenant: str
    traceparent: str | None
    payload: str


async def republish(
    connection: AsyncConnection[Any],
    bus: Bus,
    lease: Lease,
    subject_prefix: str,
    ids: Sequence[int],
    *,
    replays: bool = False,
    source: str = SOURCE,
) -> int:
    """Publish the rows with these ids again and mark them; returns how many there were.

    With ``replays`` each message says of which it is the replay. ``source`` is that of their CloudEvents.

    Raises:
        LeaseLost: ``lease`` was taken over meanwhile.
        BusError: the bus does not take one of them, or ended the connection.
    """
    ordered = sorted(ids)
    total = 0
    for start in range(0, len(ordered), _BATCH):
        cursor = await connection.execute(_SIZES, (ordered[start : start + _BATCH],))
        for part in _parts(await cursor.fetchall()):
            # Renewed before each: what is published in the name of a lost lease is published twice.
            await lease.renew(connection)
            rows = [_Row(*row) for row in await (await connection.execute(_ROWS, (part,))).fetchall()]
            receipts = await bus.publish(
                [_message(row, subject_prefix, source, replays=replays) for row in rows]
            )
            stored = [
                row for row, receipt in zip(rows, receipts, strict=True) if receipt.position is not None
            ]
            if stored:
                await mark_dispatched(connection, lease, stored)
            _reconciled.inc(len(stored))
            _log.warning("published %d events again that the stream did not hold", len(stored))
            if len(stored) < len(rows):
                msg = "the bus does not take events that are missing"
                raise BusError(msg)
            total += len(stored)
    return total


def _parts(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    part: list[int] = []
    total = 0
    for row_id, size in sizes:
        if part and total + size > _BATCH_BYTES:
            yield part
            part, total = [], 0
        part.append(row_id)
        total += size
    if part:
        yield part


def _message(row: _Row, subject_prefix: str, source: str, *, replays: bool) -> Message:
    headers = event_headers(
        message_id=f"{row.tenant}/{row.fingerprint}#{uuid.uuid4().hex[:12]}",
        fingerprint=row.fingerprint,
        kind=row.kind,
        tenant=row.tenant,
        aggregate_id=row.aggregate_id,
        created_at=row.shown_created_at,
        publisher="worker",
        traceparent=row.traceparent,
        replay_of=f"{row.tenant}/{row.fingerprint}" if replays else None,
        source=source,
    )
    key = f"{row.tenant}/{row.aggregate}/{row.aggregate_id}"
    return Message(f"{subject_prefix}.{row.aggregate}", key, encode_headers(headers), row.payload.encode())
