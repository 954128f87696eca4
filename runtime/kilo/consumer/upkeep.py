"""Keeps the inbox well while the consumer runs: partitions ahead, pruning behind, and the gauges.

How long the inbox knows an event is what ``kilo db migrate`` wrote down (``partition_windows``).

What is pending is measured first and by itself: it is how a consumer that stands still is found, and most of
what makes one stand still (a locked table, a database that is away) would end the rest of a look as well.
Each part has its end of time, and what did not end is said by the process's readiness.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError
from kilo.consumer.metrics import ConsumerMetrics
from kilo.database.session import SessionLimits, connect
from kilo.health import Health

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 15.0
_PART_SECONDS = 20.0
"""In which each part of a look ends: connecting, and a few statements of which each may wait for a lock."""
_FAILING_SECONDS = 60.0
"""After which a consumer whose handlers only fail is not ready, while events are pending."""
_LIMITS = SessionLimits(transaction=_PART_SECONDS, lock=2.0)


class InboxUpkeep:
    """Runs beside the consumer ``name``.

    Args:
        database_url: with the consumer role's credentials.
        connect_bus: connects to the bus.
        stream: what is consumed.
        name: the consumer's.
        health: of the process.
    """

    def __init__(
        self,
        database_url: str,
        connect_bus: Callable[[], Awaitable[Bus]],
        stream: str,
        name: str,
        health: Health,
    ) -> None:
        self._url = database_url
        self._connect_bus = connect_bus
        self._stream = stream
        self._name = name
        self._health = health
        self._metrics = ConsumerMetrics.shared()
        self._position: int | None = None
        """How far the consumer had read when that was last to be seen."""
        self._pending = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set."""
        while not stopping.is_set():
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. No part waits for what another can't do."""
        fine = True
        for what, part in (
            ("position", self._look_at_position),
            ("pending events", self._measure_pending),
            ("dead letters", self._count_letters),
            ("partitions", self._keep_partitions),
        ):
            try:
                async with asyncio.timeout(_PART_SECONDS):
                    await part()
            except (psycopg.Error, BusError, TimeoutError) as error:
                fine = False
                reason = f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}"
                _log.warning("inbox upkeep: %s", reason)
                self._health.broken("upkeep", reason)
        if fine:
            self._health.fine("upkeep")
        self._judge()

    def _judge(self) -> None:
        """Not ready while events are pending and what is handled only fails, so that no rollout goes on."""
        failing = self._metrics.failing_seconds
        if self._pending and failing > _FAILING_SECONDS:
            reason = f"no event has had its effect for {failing:.0f} s, {self._pending} are pending"
            if "handlers" not in self._health.reasons:
                _log.error("consumer %s: %s", self._name, reason)
            self._health.broken("handlers", reason)
        else:
            self._health.fine("handlers")

    async def _connect(self) -> AsyncConnection[Any]:
        return await connect(self._url, "kilo-consumer-upkeep", _LIMITS)

    async def _look_at_position(self) -> None:
        async with await self._connect() as connection:
            cursor = await connection.execute(
                "SELECT coalesce(max(position), 0) FROM consumer_positions"
                " WHERE consumer = %s AND source = %s",
                (self._name, self._stream),
            )
            row = await cursor.fetchone()
            self._position = row[0] if row else 0

    async def _measure_pending(self) -> None:
        bus = await self._connect_bus()
        try:
            newest = await bus.last_position(self._stream)
        finally:
            await bus.close()
        # While the database does not say it: the consumer can't have moved on either.
        if self._position is not None:
            self._pending = max(0, newest - self._position)
            self._metrics.pending.set(self._pending)

    async def _count_letters(self) -> None:
        async with await self._connect() as connection:
            cursor = await connection.execute(
                "SELECT kind, tenant, count(*), count(DISTINCT (tenant, aggregate, aggregate_id))"
                " FROM dead_letters WHERE consumer = %s AND state IN ('parked', 'waiting')"
                " GROUP BY kind, tenant",
                (self._name,),
            )
            counted = await cursor.fetchall()
            self._metrics.dead_letters.clear()
            for kind, tenant, count, _ in counted:
                self._metrics.dead_letters.labels(kind, tenant).set(count)
            self._metrics.held_aggregates.set(sum(aggregates for *_, aggregates in counted))
            cursor = await connection.execute(
                "SELECT coalesce(sum(to_position - from_position + 1), 0) FROM consumer_gaps"
                " WHERE consumer = %s AND refilled_at IS NULL",
                (self._name,),
            )
            row = await cursor.fetchone()
            self._metrics.gap_events.labels(self._name).set(row[0] if row else 0)

    async def _keep_partitions(self) -> None:
        async with await self._connect() as connection:
            await connection.execute("SELECT inbox_make_partitions()")
            await connection.execute("SELECT inbox_drop_expired()")
