"""One for a stage: counts what the platform counts by itself, and looks after the usage tables."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import psycopg
from prometheus_client import REGISTRY

from kilo.contract import StackOutputs
from kilo.database.session import connect
from kilo.errors import KiloError
from kilo.health import Health
from kilo.observe import metrics
from kilo.observe.prometheus import Prometheus, Sample
from kilo.usage.measures import Connection, count_counters, count_events, count_stored, counters_query

_log = logging.getLogger(__name__)
_counted = metrics.USAGE_COUNTED.create(REGISTRY)

PAUSE_SECONDS = 60.0
_STEPS = 20
"""Of removing what has expired, in one look."""


class Counter:
    """Looks again and again.

    Args:
        database_url: with the credentials of ``kilo_usage``.
        outputs: the stage's, for its Prometheus.
        pause_seconds: between two looks.
    """

    def __init__(
        self, database_url: str, outputs: StackOutputs, health: Health, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._url = database_url
        self._outputs = outputs
        self._health = health
        self._pause = pause_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set; what is away is waited for."""
        while not stopping.is_set():
            try:
                async with await connect(self._url, "kilo-usage-count") as connection:
                    await self.look(connection)
                    self._health.fine("database")
            except psycopg.Error as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._health.broken("database", said)
                _log.warning("usage: %s", said)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._pause)

    async def look(self, connection: Connection) -> None:
        """Count what is new, once."""
        await connection.execute("SELECT usage_make_partitions()")
        _counted.labels("events").set((await count_events(connection)).timestamp())
        _counted.labels("stored").set((await count_stored(connection)).timestamp())
        try:
            samples = await asyncio.to_thread(self._scrape)
        except KiloError as error:
            _log.warning("usage: %s", error)
        else:
            _counted.labels("counters").set((await count_counters(connection, samples)).timestamp())
        for _ in range(_STEPS):
            cursor = await connection.execute("SELECT usage_drop_expired()")
            row = await cursor.fetchone()
            if not row or not row[0]:
                break

    def _scrape(self) -> Sequence[Sample]:
        with Prometheus(self._outputs.monitoring.prometheus_url) as prometheus:
            return prometheus.query(counters_query(self._outputs.namespace))
