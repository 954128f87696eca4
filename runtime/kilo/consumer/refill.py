"""Gives a consumer the events of its gaps again, from the outbox's rows that still exist.

A gap is positions, and a row knows none. So what is given is every row that was published and that the
consumer has neither handled nor kept as a dead letter, unless the stream still holds it after the consumer's
position: it will be read from there. What is published again lies in the stream, too, so a refill that was
interrupted goes on.
Rows older than what the inbox remembers are left: nothing could tell whether they had their effect.

The events go through the bus: the consumer orders, retries and parks them like any other, and the inbox of
every other consumer knows them already. They come after what the stream holds by then, in order per ordering
key among themselves.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from psycopg import AsyncConnection

from kilo.bus import Bus
from kilo.bus.cloudevents import SOURCE
from kilo.consumer.event import Unreadable, envelope
from kilo.database.lease import Lease
from kilo.errors import BadInput, CheckFailed
from kilo.outbox.dispatched import SHOWN_CREATED_AT
from kilo.outbox.republish import republish

_PAGE = 2000
_HELD_MOST: Final = 2_000_000
"""Events remembered at most, about 200 MB. What is beyond is published once too often."""
_QUIET_SECONDS = 30
"""So long has a bus that answers to say nothing before its newest messages count as deleted."""

_CREATED_AT = SHOWN_CREATED_AT.replace("created_at", "o.created_at")
# A page of rows, not of findings: no statement takes longer than the lease.
_LOOK = f"""
WITH page AS (
    SELECT o.id, o.tenant, o.fingerprint, {_CREATED_AT} AS created_at FROM outbox o
    WHERE o.id > %(after)s AND o.dequeued_at < %(until)s
        AND o.created_at > now()
            - (SELECT days FROM partition_windows WHERE parent = 'inbox') * interval '1 day'
    ORDER BY o.id LIMIT %(page)s
)
SELECT id, tenant, fingerprint, created_at,
    EXISTS (SELECT FROM inbox i WHERE i.consumer = %(consumer)s AND i.tenant = page.tenant
        AND i.fingerprint = page.fingerprint AND i.created_at = page.created_at)
    OR EXISTS (SELECT FROM dead_letters d WHERE d.consumer = %(consumer)s AND d.tenant = page.tenant
        AND d.fingerprint = page.fingerprint AND d.created_at = page.created_at) AS known
FROM page ORDER BY id
"""  # noqa: S608  names of our own


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a refill did; the counts are of events.

    Attributes:
        gaps: how many gaps there were.
        missing: positions of the gaps.
        found: rows of the outbox that the consumer has not had and the stream does not hold.
        republished: of those, published again; none in a dry run.
        no_longer_exist: positions of the gaps for which no row was found. After a refill that was interrupted
            it counts what that one had published, too.
    """

    gaps: int
    missing: int
    found: int
    republished: int

    @property
    def no_longer_exist(self) -> int:
        """Positions of the gaps for which no row was found."""
        return max(0, self.missing - self.found)


class Refill:
    """The refill of ``consumer`` from ``stream``.

    Args:
        connection: of the worker's role, in autocommit mode.
        bus: of which nothing else is read meanwhile.
        stream: what the consumer reads.
        subject_prefix: under which events are published.
        consumer: its name.
        source: of the events, as CloudEvents have it.
        progress: told how many more events were dealt with, and how many positions the gaps have.
    """

    def __init__(  # noqa: PLR0917  what it works on
        self,
        connection: AsyncConnection[Any],
        bus: Bus,
        stream: str,
        subject_prefix: str,
        consumer: str,
        progress: Callable[[int, int], None],
        source: str = SOURCE,
    ) -> None:
        self._connection = connection
        self._bus = bus
        self._stream = stream
        self._prefix = subject_prefix
        self._source = source
        self._consumer = consumer
        self._progress = progress
        self._lease = Lease(f"outbox/refill/{consumer}", f"{socket.gethostname()}/{os.getpid()}")

    async def run(self, *, dry_run: bool = False) -> Refilled:
        """Publish again what is missing and mark the gaps; in a dry run only count it.

        Raises:
            BadInput: there is no such consumer.
            CheckFailed: another refill of it runs.
            LeaseLost: another took over, since this one was frozen.
            BusError: the bus ended the connection or does not take an event; run it again.
        """
        position = await self._position()
        if not await self._lease.acquire(self._connection):
            msg = f"another refill of consumer {self._consumer} runs"
            raise CheckFailed(msg)
        try:
            return await self._run(position, dry_run=dry_run)
        finally:
            if not self._connection.closed:
                await self._lease.release(self._connection)

    async def _run(self, position: int, *, dry_run: bool) -> Refilled:
        cursor = await self._connection.execute(
            "SELECT from_position, to_position FROM consumer_gaps"
            " WHERE consumer = %s AND source = %s AND refilled_at IS NULL",
            (self._consumer, self._stream),
        )
        gaps = await cursor.fetchall()
        missing = sum(last - first + 1 for first, last in gaps)
        found = republished = after = 0
        # What was marked until now was stored before: it lies before the end that is asked for next.
        cursor = await self._connection.execute("SELECT clock_timestamp()")
        (until,) = cast("Any", await cursor.fetchone())
        held = await self._held(position) if gaps else set[int]()
        while gaps:
            rows = await self._page(after, until)
            if not rows:
                break
            after = rows[-1][0]
            ids = [row_id for row_id, *one, known in rows if not known and hash(tuple(one)) not in held]
            found += len(ids)
            await self._lease.renew(self._connection)
            if ids and not dry_run:
                republished += await republish(
                    self._connection,
                    self._bus,
                    self._lease,
                    self._prefix,
                    ids,
                    replays=True,
                    source=self._source,
                )
            self._progress(len(ids), missing)
        if gaps and not dry_run:
            await self._mark(gaps)
        return Refilled(len(gaps), missing, found, republished)

    async def _position(self) -> int:
        cursor = await self._connection.execute(
            "SELECT position FROM consumer_positions WHERE consumer = %s AND source = %s",
            (self._consumer, self._stream),
        )
        row = await cursor.fetchone()
        if row is None:
            msg = f"--consumer {self._consumer}: no consumer of that name has read stream {self._stream}"
            raise BadInput(msg)
        return int(row[0])

    async def _held(self, position: int) -> set[int]:
        """What the stream holds after ``position``, which the consumer will read."""
        held: set[int] = set()
        newest = await self._bus.last_position(self._stream)
        if newest <= position or await self._bus.first_position(self._stream) > newest:
            return held
        quiet_since = time.monotonic()
        async with aclosing(cast("Any", self._bus.read(self._stream, position))) as reading:
            async for batch in reading:
                for each in batch:
                    try:
                        one = envelope(each)
                    except Unreadable:
                        continue
                    if len(held) < _HELD_MOST:
                        held.add(hash(one.occurrence))
                if batch:
                    quiet_since = time.monotonic()
                    if batch[-1].position >= newest:
                        break
                else:
                    # Raises where the bus is gone, which says nothing either.
                    await self._bus.last_position(self._stream)
                    if time.monotonic() - quiet_since >= _QUIET_SECONDS:
                        break
                if self._lease.due:
                    await self._lease.renew(self._connection)
        return held

    async def _page(self, after: int, until: datetime) -> list[tuple[int, str, str, datetime, bool]]:
        cursor = await self._connection.execute(
            _LOOK.encode(),
            {"after": after, "until": until, "consumer": self._consumer, "page": _PAGE},
        )
        return await cursor.fetchall()

    async def _mark(self, gaps: list[tuple[int, int]]) -> None:
        async with self._lease.fenced(self._connection):
            await self._connection.execute(
                # One that grew meanwhile stays: what it grew by was not looked for.
                "UPDATE consumer_gaps SET refilled_at = now() WHERE consumer = %s AND source = %s"
                " AND (from_position, to_position) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[]))",
                (self._consumer, self._stream, *map(list, zip(*gaps, strict=True))),
            )
