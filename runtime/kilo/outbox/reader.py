"""Reads what is waiting, in an order that holds per ordering key, without reading anything twice for nothing.

The order. The ordering key is tenant, aggregate and aggregate id. Writers of one key take turns from before
a row's id is taken until they commit (the table's trigger sees to it). So a snapshot that sees a row sees
every earlier row of its key, and reading all that is visible in the order of ids is right. Reading only below
the snapshot's xmin is not: the writer of the earlier row can have the larger transaction id, and be above
xmin while the later row is below (docs/outbox.md has the example, tests/runtime/outbox/test_reader.py shows
it).

The cursor. Ids are taken at INSERT and seen at COMMIT, so what is below the cursor can still appear. The
reader remembers the transactions that were open when it last read, with the id below which each can have
taken none, and goes back to there when they end. A transaction that stays open for hours costs nothing.

The barrier. A snapshot lists only those open transactions whose ids are below that of the latest one that
has ended (its xmax). A writer with a larger transaction id and a smaller row id than one that has ended
already would be neither seen nor listed. So before each snapshot the reader notes the sequence's last value
and then ends a transaction of its own: every writer that took a row id up to that value had its transaction
id before, and is listed as long as it is open. The cursor never goes beyond that value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from kilo.bus import encode_headers
from kilo.bus.cloudevents import SOURCE, constants
from kilo.outbox.dispatched import CREATED_AT, SHOWN_CREATED_AT

SLOTS = 64
"""Hash slots of ordering keys, as the table's trigger sets them."""

LARGEST_PAYLOAD_BYTES = 1_048_576
"""Of JSON text, as the table's trigger has it. Rows from before there was a column for it count so much."""

_YOUNG_SECONDS = 2.0

# An id of a transaction is spent only when row ids were taken since the last barrier.
# A sequence that was never used says 1 already, which its first row is still to get.
_BARRIER = """
SELECT taken, CASE WHEN taken <> %s THEN pg_current_xact_id()::text END
FROM (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS taken FROM outbox_id_seq) AS sequence
"""
# The snapshot comes with every row, and alone when none waits: it has to be that of the rows. Rows are taken
# while those before them are below the limit of bytes, so that the first comes in any case; what is cut off
# is neither read from the disk nor written out. A time that no header or program can hold is no poison.
# The headers are those of kilo.bus.event_headers.
_ROWS = """
SELECT waiting.*, (SELECT pg_current_snapshot()::text)
FROM (VALUES (1)) AS once
LEFT JOIN LATERAL (
    SELECT id,
        {created_at},
        %(prefix)s::text || '.' || aggregate AS subject,
        tenant || '/' || aggregate || '/' || aggregate_id AS key,
        convert_to(
            'Nats-Msg-Id: ' || tenant || '/' || fingerprint || E'\\r\\nfingerprint: ' || fingerprint
            || E'\\r\\nkind: ' || kind || E'\\r\\ntenant: ' || tenant
            || E'\\r\\naggregate-id: ' || aggregate_id || E'\\r\\ncreated-at: '
            || to_char({shown_created_at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            || coalesce(E'\\r\\ntraceparent: ' || traceparent || E'\\r\\nce-traceparent: ' || traceparent, '')
            || E'\\r\\npublisher: worker\\r\\nce-id: ' || tenant || '/' || {fingerprint}
            || E'\\r\\nce-type: ' || kind || E'\\r\\nce-subject: ' || {aggregate_id}
            || E'\\r\\nce-tenant: ' || tenant || E'\\r\\nce-time: '
            || to_char({shown_created_at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            || %(constants)s, 'UTF8'
        ) AS headers,
        convert_to(payload::text, 'UTF8') AS payload
    FROM (
        SELECT *, sum(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
        FROM (
            SELECT *, coalesce(payload_bytes, {largest}) AS bytes
            FROM outbox
            WHERE dequeued_at IS NULL AND publisher = 'worker' AND id > %(start)s {slots} {held}
            ORDER BY id LIMIT %(rows)s
        ) AS first
    ) AS counted
    WHERE bytes_before < %(bytes)s
    ORDER BY id
) AS waiting ON true
"""


def _encoded(column: str) -> str:
    """A column of printable ASCII as a value of CloudEvents; the driver takes two percents for one."""
    return f"replace(replace({column}, '%%', '%%25'), '\"', '%%22')"


def _statement(*, slots: bool, held: bool) -> bytes:
    return _ROWS.format(
        fingerprint=_encoded("fingerprint"),
        aggregate_id=_encoded("aggregate_id"),
        largest=LARGEST_PAYLOAD_BYTES,
        created_at=CREATED_AT,
        shown_created_at=SHOWN_CREATED_AT,
        slots="AND slot = ANY(%(slots)s)" if slots else "",
        # Not "<> ALL", which is compared one by one.
        held="AND id NOT IN (SELECT unnest(%(held)s::bigint[]))" if held else "",
    ).encode()


_STATEMENTS = {
    (slots, held): _statement(slots=slots, held=held) for slots in (False, True) for held in (False, True)
}


class Row(NamedTuple):
    """A waiting row; the names are the columns'."""

    id: int
    created_at: datetime | None
    """None when it is none that a program can hold, such as infinity."""
    subject: str
    key: str
    """The ordering key: tenant, aggregate and aggregate id."""
    headers: bytes
    payload: bytes
    snapshot: str


def _rows(_cursor: object) -> Callable[[Sequence[Any]], Row]:
    """A row factory whose rows are made without a call of Python's: there is one an event."""
    return partial(tuple.__new__, Row)


@dataclass(slots=True)
class _Open:
    """A transaction that was open: it took no id up to ``above``."""

    above: int
    since: float


class OutboxReader:
    """Reads waiting rows of some slots over ``connection``, which is in autocommit mode.

    ``source`` is that of their CloudEvents; an event's subject is ``subject_prefix``, a dot, its aggregate.
    """

    def __init__(
        self, connection: AsyncConnection[Any], source: str = SOURCE, subject_prefix: str = "events"
    ) -> None:
        self._connection = connection
        self._prefix = subject_prefix
        self._constants = "\r\n" + encode_headers(constants(source)).decode()
        self._cursor = 0
        self._open: dict[int, _Open] = {}
        self._seen: set[int] = set()
        self._barrier = 0
        self._reading = False
        self._dropped: set[int] = set()

    def drop(self, ids: Iterable[int]) -> None:
        """These rows are in nobody's hands any more: they are marked, or let go."""
        if self._reading:
            # What is being read was seen before they were marked: it would take them for new.
            self._dropped.update(ids)
        else:
            self._seen.difference_update(ids)

    def rewind(self, row_id: int) -> None:
        """Rows from ``row_id`` on that were let go are to be read again."""
        self._cursor = min(self._cursor, row_id - 1)

    def requeue(self, ids: Sequence[int]) -> None:
        """Let these rows go, and read them again."""
        if ids:
            self.drop(ids)
            self.rewind(min(ids))

    def restart(self) -> None:
        """Read from the beginning, as after slots were gained."""
        self._cursor = 0

    async def read(self, slots: frozenset[int], most: int, most_bytes: int) -> list[Row]:
        """Waiting rows that are in nobody's hands, in the order of ids.

        They are in the caller's hands then, until it marks them or lets them go.

        Args:
            slots: of which the rows are.
            most: rows, at most.
            most_bytes: payloads' bytes after which no further row is taken; one is in any case.
        """
        self._reading = True
        try:
            return await self._read(slots, most, most_bytes)
        finally:
            self._reading = False
            self._seen -= self._dropped
            self._dropped.clear()

    async def _read(self, slots: frozenset[int], most: int, most_bytes: int) -> list[Row]:
        while True:
            start = self._start()
            barrier = await self._pass_barrier()
            if barrier < self._barrier:
                # The sequence began anew: it wrapped, or was set back. New rows have ids below the cursor.
                self._barrier = barrier
                self.restart()
                continue
            found = await self._fetch(start, slots, most, most_bytes)
            rows = found if found[0].headers else []  # a row without columns when none waits
            missed = self._missed(found[0].snapshot, start)
            self._barrier = barrier
            if missed:
                continue
            if rows:
                # There may be more behind the last of them, also below the former cursor.
                self._cursor = min(rows[-1].id, barrier)
            seen = self._seen
            fresh = [row for row in rows if row.id not in seen] if seen else rows
            seen.update([row.id for row in fresh])
            return fresh

    def _start(self) -> int:
        now = time.monotonic()
        young = [each.above for each in self._open.values() if now - each.since < _YOUNG_SECONDS]
        return min([self._cursor, *young])

    def _missed(self, snapshot: str, start: int) -> bool:
        """Take note of ``snapshot``; whether an old transaction ended whose rows are below ``start``."""
        _, _, listed = snapshot.split(":")
        running = {int(each) for each in listed.split(",")} if listed else set[int]()
        ended = [each.above for xid, each in self._open.items() if xid not in running]
        self._open = {xid: each for xid, each in self._open.items() if xid in running}
        # What the snapshot before did not list took its ids after the barrier before that snapshot.
        now = time.monotonic()
        for xid in running - self._open.keys():
            self._open[xid] = _Open(self._barrier, now)
        if ended and min(ended) < start:
            self._cursor = min(self._cursor, *ended)
            return True
        return False

    async def _pass_barrier(self) -> int:
        """The last row id before a transaction that has ended when this returns."""
        async with self._connection.cursor(binary=True) as cursor:
            await cursor.execute(_BARRIER, (self._barrier,), prepare=True)
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def _fetch(self, start: int, slots: frozenset[int], most: int, most_bytes: int) -> list[Row]:
        held = [each for each in self._seen if each > start]
        values = {
            "prefix": self._prefix,
            "start": start,
            "rows": most,
            "bytes": most_bytes,
            "slots": sorted(slots),
            "held": "{" + ",".join(map(str, held)) + "}",
            "constants": self._constants,
        }
        statement = _STATEMENTS[len(slots) < SLOTS, bool(held)]
        async with self._connection.cursor(binary=True, row_factory=_rows) as cursor:
            await cursor.execute(statement, values, prepare=True)
            return await cursor.fetchall()
