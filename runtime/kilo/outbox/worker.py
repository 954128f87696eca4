"""The worker: publishes committed rows to the bus, in order per ordering key, and marks them.

One loop a worker: read a batch, publish it pipelined, wait for every acknowledgement, mark what was
acknowledged in one statement. The mark and the next read overlap with the next publish. Whatever is lost
on the way (the bus, the database, this process) is done again from what the rows say; the message id is
made of tenant and fingerprint, so the bus drops what it had already. A batch is bounded in rows and bytes;
two of them are in memory, one that is published and one that is read meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import psycopg
from prometheus_client import REGISTRY
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError, Message, Receipt
from kilo.bus.cloudevents import SOURCE
from kilo.database.lease import LEASE_SECONDS, LeaseLost
from kilo.database.session import connect
from kilo.health import Health
from kilo.observe.metrics import (
    OUTBOX_DUPLICATES_SUPPRESSED,
    OUTBOX_PUBLISH_DURATION,
    OUTBOX_PUBLISH_ERRORS,
)
from kilo.outbox.blocked import BlockedKeys
from kilo.outbox.dispatched import mark_dispatched
from kilo.outbox.published import outbox_published
from kilo.outbox.reader import OutboxReader, Row
from kilo.outbox.slots import SlotLeases
from kilo.pace import Pace

_log = logging.getLogger(__name__)
_published = outbox_published("worker")
_errors = OUTBOX_PUBLISH_ERRORS.create(REGISTRY)
_suppressed = OUTBOX_DUPLICATES_SUPPRESSED.create(REGISTRY)
_durations = OUTBOX_PUBLISH_DURATION.create(REGISTRY)

BATCH = 2000
BATCH_BYTES = 16 * 1024 * 1024
"""Of payloads. Two batches, the driver's and the bus client's copies of one fit into the pod's 384 MiB."""
_PUBLISH_SECONDS = 5.0
_IDLE_FIRST_SECONDS, _IDLE_LONGEST_SECONDS = 0.01, 0.5
_PAUSE_LONGEST_SECONDS = 5.0
_MANY_FAILURES = 200
"""Failures in a batch from which on it is the bus that is ill, not single aggregates."""

# There is one of these an event, so none of them is made by a call of Python's.
_MESSAGE_FIELDS = itemgetter(*map(Row._fields.index, ("subject", "key", "headers", "payload")))
_message: Callable[[Any], Message] = partial(tuple.__new__, Message)


class Worker:
    """One worker of a stage's outbox.

    Args:
        database_url: with the worker role's credentials.
        connect_bus: connects to the bus; called again whenever the connection is lost.
        health: told whether the components that are needed answer.
        batch: rows read and published at once, at most.
        batch_bytes: payloads' bytes after which a batch takes no further row.
        name: what this worker is called among its like; one of its own by default.
        lease_seconds: after which others take over what it held, unless it renews.
        source: of the events, as CloudEvents have it.
        subject_prefix: an event's subject is this, a dot, and its aggregate.
    """

    def __init__(
        self,
        database_url: str,
        connect_bus: Callable[[], Awaitable[Bus]],
        health: Health | None = None,
        batch: int = BATCH,
        *,
        name: str | None = None,
        batch_bytes: int = BATCH_BYTES,
        lease_seconds: float = LEASE_SECONDS,
        source: str = SOURCE,
        subject_prefix: str = "events",
    ) -> None:
        self._url = database_url
        self._prefix = subject_prefix
        self._connect_bus = connect_bus
        self._health = health or Health()
        self._limits = (batch, batch_bytes)
        self._lease_seconds = lease_seconds
        self._source = source
        self.name = name or f"{socket.gethostname()}/{os.getpid()}/{random.randrange(1 << 32):08x}"  # noqa: S311
        self.published = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set; then nothing is in flight and no slot is held."""
        pause = 0.1
        while not stopping.is_set():
            started = time.monotonic()
            try:
                await self._session(stopping)
            except (psycopg.Error, LeaseLost, BusError, TimeoutError) as error:
                part = "bus" if isinstance(error, BusError) else "database"
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._health.broken(part, reason)
                _log.warning("starting again in %.1f s: %s: %s", pause, part, reason)
                if time.monotonic() - started > 2 * _PAUSE_LONGEST_SECONDS:
                    pause = 0.1
                await _wait(stopping, pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter
                pause = min(2 * pause, _PAUSE_LONGEST_SECONDS)

    async def drain(self) -> int:
        """Publish until nothing waits, then return how many rows were; for tools and measurements."""
        return await self._session(asyncio.Event(), until_empty=True)

    async def _session(self, stopping: asyncio.Event, *, until_empty: bool = False) -> int:
        async with contextlib.AsyncExitStack() as stack:
            reading, marking, listening = [
                await stack.enter_async_context(await connect(self._url, f"kilo-outbox {self.name}"))
                for _ in range(3)
            ]
            # A mark that a crash of the database undoes costs a suppressed duplicate; waiting for the disk
            # after every batch costs far more.
            await marking.execute("SET synchronous_commit = off")
            self._health.fine("database")
            bus = await self._connect_bus()
            stack.push_async_callback(bus.close)
            self._health.fine("bus")
            session = _Session(self, reading, marking, bus)
            waker = asyncio.ensure_future(_listen(listening, session.wake))
            stack.callback(waker.cancel)
            try:
                return await session.run(stopping, waker, until_empty=until_empty)
            finally:
                with contextlib.suppress(psycopg.Error, LeaseLost):
                    await session.dispatched()
                    await session.leases.release()


class _Session:
    """The loop while database and bus answer."""

    def __init__(
        self, worker: Worker, reading: AsyncConnection[Any], marking: AsyncConnection[Any], bus: Bus
    ) -> None:
        self._worker = worker
        self._batch, self._batch_bytes = worker._limits  # pyright: ignore[reportPrivateUsage]
        self._marking = marking
        self._bus = bus
        source, prefix = worker._source, worker._prefix  # pyright: ignore[reportPrivateUsage]
        self._reader = OutboxReader(reading, source, prefix)
        self._blocked = BlockedKeys(marking)
        self.leases = SlotLeases(marking, worker.name, worker._lease_seconds)  # pyright: ignore[reportPrivateUsage]
        self.wake = asyncio.Event()
        self._pace = Pace()
        self._mark: asyncio.Future[None] | None = None
        self._published = 0

    async def run(self, stopping: asyncio.Event, waker: asyncio.Future[None], *, until_empty: bool) -> int:
        idle = _IDLE_FIRST_SECONDS
        rows: list[Row] = []
        while not stopping.is_set():
            if waker.done():
                waker.result()
            if self.leases.due:
                # Nothing is in flight here: publishing is over, and rows read ahead are read again.
                self._reader.requeue([row.id for row in rows])
                rows = []
                await self.dispatched()
                if await self.leases.renew():
                    self._reader.restart()
                await self._blocked.update_table()
            if not rows:
                await self._pace.rest()
            self.wake.clear()
            rows = rows or await self._read()
            for first in self._blocked.due_rows():
                self._reader.rewind(first)
            if rows:
                idle = _IDLE_FIRST_SECONDS
                with self._pace.batch(full=until_empty or self._is_large(rows)):
                    rows = await self._publish_batch(rows)
                continue
            await self.dispatched()
            if until_empty:
                break
            await _first(stopping, self.wake, idle * random.uniform(0.5, 1.0))  # noqa: S311  jitter
            idle = min(2 * idle, _IDLE_LONGEST_SECONDS)
        await self.dispatched()
        return self._published

    async def _read(self) -> list[Row]:
        return await self._reader.read(self.leases.held, self._batch, self._batch_bytes)

    async def _publish_batch(self, rows: Sequence[Row]) -> list[Row]:
        """Publish ``rows`` and begin to mark them; returns the rows that were read meanwhile."""
        started = time.perf_counter()
        free = [row for row in rows if not self._blocked.holds(row)] if self._blocked else rows
        if len(free) < len(rows):
            kept = {row.id for row in free}
            self._reader.drop(row.id for row in rows if row.id not in kept)
        messages = list(map(_message, map(_MESSAGE_FIELDS, free)))
        publishing = asyncio.ensure_future(self._bus.publish(messages, _PUBLISH_SECONDS))
        try:
            ahead = await self._read() if self._is_large(rows) and not self.leases.due else []
        finally:
            receipts = await publishing
        stored, failed = _sort_out(free, receipts)
        _published.inc(len(stored))
        _suppressed.inc(sum([receipt.duplicate for receipt in receipts]))
        self._published += len(stored)
        self._worker.published += len(stored)
        await self.dispatched()
        if stored:
            self._mark = asyncio.ensure_future(self._mark_dispatched(stored))
        self._blocked.release(stored)
        if failed:
            await self._requeue(failed, [*ahead])
            ahead = []
        _durations.observe(time.perf_counter() - started)
        return ahead

    def _is_large(self, rows: Sequence[Row]) -> bool:
        """Whether more may wait than ``rows``, so that it pays to read ahead."""
        if len(rows) >= self._batch // 2:
            return True
        return sum([len(row.payload) for row in rows]) >= self._batch_bytes // 2

    async def _requeue(self, failed: list[tuple[Row, str]], ahead: list[Row]) -> None:
        _errors.inc(len(failed))
        self._reader.requeue([row.id for row in ahead])
        await self.dispatched()
        if len(failed) >= _MANY_FAILURES:
            msg = f"{len(failed)} events were not taken; the first: {failed[0][1]}"
            raise BusError(msg)
        self._reader.drop(row.id for row, _ in failed)
        await self._blocked.block(failed)

    async def _mark_dispatched(self, rows: Sequence[Row]) -> None:
        await mark_dispatched(self._marking, self.leases.lease, rows)
        self._reader.drop([row.id for row in rows])

    async def dispatched(self) -> None:
        """Wait for the mark that is under way."""
        if self._mark is not None:
            mark, self._mark = self._mark, None
            await mark


def _sort_out(
    rows: Sequence[Row], receipts: Sequence[Receipt]
) -> tuple[Sequence[Row], list[tuple[Row, str]]]:
    """What is stored, and what is not with the reason."""
    failed = [
        (row, receipt.error or "")
        for row, receipt in zip(rows, receipts, strict=True)
        if receipt.position is None
    ]
    if not failed:
        return rows, failed
    stored = [row for row, receipt in zip(rows, receipts, strict=True) if receipt.position is not None]
    return stored, failed


async def _listen(connection: AsyncConnection[Any], wake: asyncio.Event) -> None:
    await connection.execute("LISTEN outbox")
    async for _ in connection.notifies():
        wake.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _first(stopping: asyncio.Event, wake: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (stopping, wake)]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
