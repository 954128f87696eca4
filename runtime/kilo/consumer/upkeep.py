"""Keeps the inbox well while the consumer runs: partitions ahead, pruning behind, and the gauges.

How long the inbox knows an event is what ``kilo db migrate`` wrote down (``partition_windows``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError
from kilo.consumer.metrics import ConsumerMetrics

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 15.0


class InboxUpkeep:
    """Runs beside the consumer ``name``.

    Args:
        database_url: with the consumer role's credentials.
        connect_bus: connects to the bus.
        stream: what is consumed.
        name: the consumer's.
    """

    def __init__(
        self,
        database_url: str,
        connect_bus: Callable[[], Awaitable[Bus]],
        stream: str,
        name: str,
    ) -> None:
        self._url = database_url
        self._connect_bus = connect_bus
        self._stream = stream
        self._name = name
        self._metrics = ConsumerMetrics.shared()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set."""
        while not stopping.is_set():
            try:
                await self._measure()
            except (psycopg.Error, BusError) as error:
                _log.warning("inbox upkeep: %s", str(error).splitlines()[0])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS)

    async def _measure(self) -> None:
        async with await AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="kilo-consumer-upkeep"
        ) as connection:
            await connection.execute("SELECT inbox_make_partitions()")
            await connection.execute("SELECT inbox_drop_expired()")
            cursor = await connection.execute(
                "SELECT kind, tenant, count(*), count(DISTINCT (tenant, aggregate, aggregate_id))"
                " FROM dead_letters WHERE consumer = %s AND state IN ('parked', 'waiting')"
                " GROUP BY kind, tenant",
                (self._name,),
            )
            self._metrics.dead_letters.clear()
            held = 0
            for kind, tenant, count, aggregates in await cursor.fetchall():
                self._metrics.dead_letters.labels(kind, tenant).set(count)
                held += aggregates
            self._metrics.held_aggregates.set(held)
            cursor = await connection.execute(
                "SELECT coalesce(sum(to_position - from_position + 1), 0) FROM consumer_gaps"
                " WHERE consumer = %s AND refilled_at IS NULL",
                (self._name,),
            )
            row = await cursor.fetchone()
            self._metrics.gap_events.labels(self._name).set(row[0] if row else 0)
            cursor = await connection.execute(
                "SELECT coalesce(max(position), 0) FROM consumer_positions"
                " WHERE consumer = %s AND source = %s",
                (self._name, self._stream),
            )
            row = await cursor.fetchone()
        bus = await self._connect_bus()
        try:
            newest = await bus.last_position(self._stream)
        finally:
            await bus.close()
        self._metrics.pending.set(max(0, newest - (row[0] if row else 0)))
