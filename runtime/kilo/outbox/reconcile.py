"""The reconciler: proves that every row that was published is in the stream, and mends it when not.

It reads the stream twice. At its end, to mark the rows that change capture has delivered. And a while
behind, to compare: a row counts as delivered only when the stream still holds its event after the bus has
synced it to disk (``LAG_SECONDS``, three times the bus's sync interval), so that what a power cut took
from the bus is found missing. Rows are kept for days, so what is missing is published again, with a new
message id since the bus may still know the old one, and with the same fingerprint.

What is compared is told apart without comparing clocks: database, bus and this process may each have
another. Every few seconds the reconciler notes the database's time and the stream's end; a while later,
by its own stopwatch, rows that the database had marked until then are looked for up to that end. A row is
marked after its event was stored, so it lies there.

Only the holder of a lease works, and everything it writes is fenced by the lease's epoch. What the stream
holds is read as hostile: a message without readable tenant and fingerprint is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row

from kilo.bus import Bus, BusError, Received, same_history
from kilo.bus.cloudevents import source_of
from kilo.contract import StackOutputs
from kilo.database.lease import LEASE_SECONDS, Lease, LeaseLost
from kilo.database.session import SessionLimits, connect
from kilo.health import Health
from kilo.observe.metrics import OUTBOX_RECONCILE_LAST_SUCCESS
from kilo.outbox.dispatched import CREATED_AT, mark_dispatched
from kilo.outbox.losses import say_lost
from kilo.outbox.never_captured import NeverCaptured
from kilo.outbox.published import outbox_published
from kilo.outbox.republish import republish

_log = logging.getLogger(__name__)
_published = outbox_published("cdc")
_success = OUTBOX_RECONCILE_LAST_SUCCESS.create(REGISTRY)

LAG_SECONDS = 30.0
_MARGIN_SECONDS = 5.0
"""How long a mark may take to be committed."""
_CYCLE_SECONDS = 1.0
_COMPARE_SECONDS = 5.0
_KEEP_SECONDS = 600.0
_KEEP_MOST = 2_000_000
"""Events remembered at most, about 200 MB. What is forgotten and still needed is published once too often."""
_BATCH = 2000
_MISSING_MOST = 50_000
"""Rows mended in one comparison, at most; the next goes on from there."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)

_LEASE = "outbox/reconciler"
# Comparing reads as many rows as there are, in one transaction; it locks nothing but the lease.
_LIMITS: Final = SessionLimits(transaction=0)

_CAPTURED = f"""
SELECT DISTINCT o.id, {CREATED_AT.replace("created_at", "o.created_at")} AS created_at
FROM unnest(%s::text[], %s::text[]) AS seen (tenant, fingerprint)
JOIN outbox_fingerprints f ON f.fingerprint = seen.fingerprint AND f.tenant = seen.tenant
JOIN outbox o ON o.id = f.outbox_id AND o.created_at = f.created_at
WHERE o.publisher = 'cdc' AND o.dequeued_at IS NULL
"""  # noqa: S608  names of our own

_TENANT = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_FINGERPRINT = re.compile(r"[!-~]{1,255}")


@dataclass(slots=True)
class _Progress:
    dispatched_position: int
    dispatched_stored_at: float | None
    resume: int
    verified_until: datetime


class _Horizon(NamedTuple):
    """A moment, by each clock: what had happened until then."""

    noted_at: float
    """By this process's stopwatch."""
    database_time: datetime
    stream_end: int


class Reconciler:
    """One reconciler of a stage; further copies stand by.

    Args:
        database_url: with the worker role's credentials.
        connect_bus: connects to the bus; called again whenever the connection is lost.
        outputs: the stage's.
        health: told whether the components that are needed answer.
        lag_seconds: how far behind the comparison is, at least; longer than the bus's sync interval.
        lease_seconds: after which a copy that stands by takes over, unless this one renews.
    """

    def __init__(
        self,
        database_url: str,
        connect_bus: Callable[[], Awaitable[Bus]],
        outputs: StackOutputs,
        health: Health | None = None,
        lag_seconds: float = LAG_SECONDS,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._url = database_url
        self._connect_bus = connect_bus
        self._outputs = outputs
        self._health = health or Health()
        self._lag = lag_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set; components that are away are waited for."""
        pause = 0.2
        while not stopping.is_set():
            try:
                await self._session(stopping)
                pause = 0.2
            except (psycopg.Error, LeaseLost, BusError, TimeoutError) as error:
                part = "bus" if isinstance(error, BusError) else "database"
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._health.broken(part, reason)
                _log.warning("starting again in %.1f s: %s: %s", pause, part, reason)
                await _wait(stopping, pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter
                pause = min(2 * pause, 5.0)

    async def _session(self, stopping: asyncio.Event) -> None:
        lease = Lease(_LEASE, f"{socket.gethostname()}/{os.getpid()}", self._lease_seconds)
        async with await connect(self._url, "kilo-outbox-reconciler", _LIMITS) as connection:
            self._health.fine("database")
            buses = [await self._connect_bus() for _ in range(3)]
            self._health.fine("bus")
            try:
                while not await lease.acquire(connection):
                    await _wait(stopping, _CYCLE_SECONDS)
                    if stopping.is_set():
                        return
                await _Comparison(connection, lease, buses, self._outputs, self._lag).run(stopping)
            finally:
                with contextlib.suppress(psycopg.Error):
                    await lease.release(connection)
                for bus in buses:
                    await bus.close()


class _Comparison:
    """The work of the copy that holds the lease, while database and bus answer."""

    def __init__(
        self,
        connection: AsyncConnection[Any],
        lease: Lease,
        buses: Sequence[Bus],
        outputs: StackOutputs,
        lag: float,
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._publisher, self._at_end, self._behind = buses
        self._stream = outputs.bus.stream
        self._prefix = outputs.bus.subject_prefix
        self._source = source_of(outputs.stage)
        self._never_captured = NeverCaptured(connection, outputs.outbox.replication_slot, lag)
        self._lag = lag
        self._seen: set[int] = set()
        self._order: deque[tuple[float, int, int]] = deque()
        self._held_back: list[Received] = []
        self._read_until = 0
        self._horizons: deque[_Horizon] = deque()

    async def run(self, stopping: asyncio.Event) -> None:
        progress = await self._load()
        self._read_until = progress.resume
        ends = self._at_end.read(self._stream, progress.dispatched_position, _BATCH)
        behind = self._behind.read(self._stream, progress.resume, _BATCH)
        compare_at = 0.0
        while not stopping.is_set():
            await self._lease.renew(self._connection)
            await self._mark_captured(ends, progress)
            if time.monotonic() >= compare_at:
                await self._compare(behind, progress)
                compare_at = time.monotonic() + _COMPARE_SECONDS
            await _wait(stopping, _CYCLE_SECONDS)

    async def _compare(self, behind: Any, progress: _Progress) -> None:
        horizon = await self._horizon()
        missing: list[int] = []
        if horizon:
            await self._remember(behind, horizon.stream_end)
            missing = await self._missing(progress, horizon.database_time)
        missing += await self._never_captured.look()
        say_lost(len(missing))
        if missing:
            await republish(
                self._connection, self._publisher, self._lease, self._prefix, missing, source=self._source
            )
        await self._save(progress, len(missing))
        _success.set_to_current_time()

    async def _load(self) -> _Progress:
        cursor = await self._connection.execute(
            "INSERT INTO outbox_reconciler (stream, verified_until) VALUES (%s, now() - interval '1 hour')"
            " ON CONFLICT (stream) DO UPDATE SET stream = excluded.stream"
            " RETURNING dispatched_position, dispatched_stored_at, resume, verified_until",
            (self._stream,),
        )
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101  RETURNING of an upsert has one row
        progress = _Progress(*row)
        if not await same_history(
            self._publisher, self._stream, progress.dispatched_position, progress.dispatched_stored_at
        ) or progress.resume > await self._publisher.last_position(self._stream):
            _log.warning(
                "stream %s is not the one of which %d was read: comparing everything that the outbox holds",
                self._stream,
                progress.dispatched_position,
            )
            return _Progress(0, None, 0, _LONG_AGO)
        return progress

    async def _mark_captured(self, ends: Any, progress: _Progress) -> None:
        """Mark rows that change capture has delivered, up to the stream's present end."""
        newest = await self._publisher.last_position(self._stream)
        if newest < progress.dispatched_position:
            msg = f"stream {self._stream} ends at {newest}, and was read up to {progress.dispatched_position}"
            raise BusError(msg)
        while progress.dispatched_position < newest:
            batch: Sequence[Received] = await anext(ends)
            if not batch:
                return
            captured = [
                identity
                for each in batch
                if each.headers.get("publisher") == "cdc" and (identity := _identity(each))
            ]
            if captured:
                async with self._connection.cursor(row_factory=namedtuple_row) as cursor:
                    tenants, fingerprints = map(list, zip(*captured, strict=True))
                    await cursor.execute(_CAPTURED, (tenants, fingerprints), prepare=True)
                    rows: Any = await cursor.fetchall()
                if rows:
                    _published.inc(await mark_dispatched(self._connection, self._lease, rows))
            if self._lease.due:
                await self._lease.renew(self._connection)
            progress.dispatched_position = batch[-1].position
            progress.dispatched_stored_at = batch[-1].stored_at

    async def _horizon(self) -> _Horizon | None:
        """Note the present moment, and return the newest one that lies long enough ago, if there is any."""
        cursor = await self._connection.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101  a SELECT without FROM has one row
        # The stream's end comes after the time: what was marked until then has been stored by now.
        end = await self._publisher.last_position(self._stream)
        self._horizons.append(_Horizon(time.monotonic(), row[0], end))
        found: _Horizon | None = None
        while self._horizons and self._horizons[0].noted_at <= time.monotonic() - self._lag:
            found = self._horizons.popleft()
        return found

    async def _remember(self, behind: Any, end: int) -> None:
        """Remember what the stream holds up to the position ``end``."""
        quiet_since = time.monotonic()
        while self._read_until < end:
            batch, self._held_back = self._held_back or list(await anext(behind)), []
            if not batch:
                # What a busy bus says late is not lost; only of a deleted end does nothing come for long.
                await self._behind.last_position(self._stream)
                await self._lease.renew(self._connection)
                if time.monotonic() - quiet_since < self._lag:
                    continue
                self._read_until = end
                break
            quiet_since = time.monotonic()
            ripe = [each for each in batch if each.position <= end]
            self._held_back = batch[len(ripe) :]
            for each in ripe:
                key = hash((each.headers.get("tenant"), each.headers.get("fingerprint")))
                self._seen.add(key)
                self._order.append((each.stored_at, key, each.position))
            self._read_until = ripe[-1].position if ripe else end
            if self._lease.due:
                await self._lease.renew(self._connection)
        newest = self._order[-1][0] if self._order else 0.0
        while self._order and (self._order[0][0] < newest - _KEEP_SECONDS or len(self._order) > _KEEP_MOST):
            self._seen.discard(self._order.popleft()[1])

    async def _missing(self, progress: _Progress, database_time: datetime) -> list[int]:
        """Rows that were marked before ``database_time`` and that the stream does not hold."""
        until = database_time - timedelta(seconds=_MARGIN_SECONDS)
        if until <= progress.verified_until:
            # The database's clock was set back, as by a failover: what is marked from here on is older.
            progress.verified_until = until
            return []
        missing: list[int] = []
        last = progress.verified_until
        async with (
            self._lease.fenced(self._connection),
            self._connection.cursor(name="marked") as cursor,
        ):
            await cursor.execute(
                "SELECT id, tenant, fingerprint, dequeued_at FROM outbox"
                " WHERE dequeued_at > %s AND dequeued_at <= %s ORDER BY dequeued_at",
                (progress.verified_until, until),
            )
            async for row_id, tenant, fingerprint, dequeued_at in cursor:
                # Rows that were marked together are looked at together.
                if len(missing) >= _MISSING_MOST and dequeued_at > last:
                    until = last
                    break
                last = dequeued_at
                if hash((tenant, fingerprint)) not in self._seen:
                    missing.append(row_id)
        progress.verified_until = until
        return missing

    async def _save(self, progress: _Progress, republished: int) -> None:
        if self._order:
            progress.resume = max(progress.resume, self._order[0][2] - 1)
        async with self._lease.fenced(self._connection):
            await self._connection.execute(
                "UPDATE outbox_reconciler SET dispatched_position = %s, dispatched_stored_at = %s,"
                " resume = %s, verified_until = %s, republished = republished + %s, compared_at = now()"
                " WHERE stream = %s",
                (
                    progress.dispatched_position,
                    progress.dispatched_stored_at,
                    progress.resume,
                    progress.verified_until,
                    republished,
                    self._stream,
                ),
            )


def _identity(received: Received) -> tuple[str, str] | None:
    """Tenant and fingerprint, when both are what the outbox could have written."""
    tenant, fingerprint = received.headers.get("tenant", ""), received.headers.get("fingerprint", "")
    known = _TENANT.fullmatch(tenant) and _FINGERPRINT.fullmatch(fingerprint)
    return (tenant, fingerprint) if known else None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


__all__ = ["LAG_SECONDS", "Reconciler"]
