"""Runs a consumer: connects, acquires leadership, and begins again whenever a connection is lost.

Nothing but being stopped ends it. What a handler does wrong is its event's failure and never gets here; what
does get here is a connection that ended, a lease that was taken over, or a fault of the consumer itself,
and each begins again after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.bus import BusError
from kilo.consumer.consumer import Connections, Consumer
from kilo.consumer.event import Envelope
from kilo.consumer.failure import describe
from kilo.consumer.retention import BehindRetention
from kilo.consumer.session import Session
from kilo.database.lease import Lease, LeaseLost
from kilo.database.session import SessionLimits, connect
from kilo.errors import BadInput
from kilo.health import Health

_log = logging.getLogger(__name__)

_PAUSE_LONGEST_SECONDS = 5.0
_STAND_BY_SECONDS = 0.5
_GAP_SECONDS = 2.0
"""Between two looks whether a gap was refilled."""
_LIMITS = SessionLimits(idle_in_transaction=10.0, transaction=0.0, lock=0.0)
"""A transaction may take as long as its handlers do, while the process lives: it says so every second (see
:class:`kilo.consumer.session.Session`). A frozen one ends after 10 seconds."""


class Runner:
    """One copy of ``consumer``, until ``stopping`` is set."""

    def __init__(
        self, consumer: Consumer, connections: Connections, stopping: asyncio.Event, health: Health
    ) -> None:
        self.consumer = consumer
        self.connections = connections
        self.stopping = stopping
        self.cancelled = False
        """Whether this copy itself was cancelled; a handler's CancelledError is its own failure."""
        self.lease = Lease(f"consumer/{consumer.name}", f"{socket.gethostname()}/{os.getpid()}")
        self.health = health
        self._suspects: Counter[tuple[str, str, datetime]] = Counter()

    async def run(self) -> None:
        """See :meth:`kilo.consumer.Consumer.run`."""
        # A task of its own: a handler that cancels the task it runs in must not cancel the caller's.
        running = asyncio.ensure_future(self._run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self.cancelled = True
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            raise

    def is_suspect(self, one: Envelope) -> bool:
        """Whether the connection ended while ``one`` was handled."""
        return one.occurrence in self._suspects

    def losses(self, one: Envelope) -> int:
        """How often in a row the connection ended while ``one`` was handled."""
        return self._suspects[one.occurrence]

    def clear(self, events: Sequence[Envelope]) -> None:
        """``events`` are dealt with, and the connection is still there."""
        for one in events if self._suspects else ():
            self._suspects.pop(one.occurrence, None)

    async def _run(self) -> None:
        pause = 0.1
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                await self._session()
            except BadInput:
                raise
            except BehindRetention as error:
                if self.health.reasons.get("retention") != str(error):
                    _log.error("consumer %s stops: %s", self.consumer.name, error)
                self.health.broken("retention", str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), _GAP_SECONDS)
            except Exception as error:
                self._report(error, pause)
                if time.monotonic() - started > 2 * _PAUSE_LONGEST_SECONDS:
                    pause = 0.1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(2 * pause, _PAUSE_LONGEST_SECONDS)

    def _report(self, error: Exception, pause: float) -> None:
        if isinstance(error, LeaseLost):
            _log.warning("%s; standing by", error)
            return
        part = "bus" if isinstance(error, BusError) else "database"
        passing = isinstance(
            error, BusError | psycopg.OperationalError | psycopg.InterfaceError | TimeoutError
        )
        # The bus's and the connection's own words say where; any other error might quote a value.
        ended = isinstance(error, BusError) or (
            isinstance(error, psycopg.OperationalError) and not error.sqlstate
        )
        reason = str(error).splitlines()[0] if ended and str(error) else describe(error)
        self.health.broken(part, reason)
        _log.log(
            logging.WARNING if passing else logging.ERROR,
            "starting again in %.1f s: %s: %s",
            pause,
            part,
            reason,
        )

    async def _session(self) -> None:
        connection = await connect(
            self.connections.database_url, f"kilo-consumer {self.consumer.name}", _LIMITS
        )
        async with connection:
            # A statement ends before its attempt's own time limit matters to nobody any more.
            longest = round(1000 * (self.consumer.longest_timeout_seconds + 1))
            await connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(longest),))
            self.health.fine("database")
            bus = await self.connections.connect_bus()
            self.health.fine("bus")
            try:
                if not await self._acquire_leadership(connection):
                    return
                session = Session(self, connection, bus)
                try:
                    await session.run()
                except LeaseLost:
                    raise
                except Exception:
                    self._suspects.update(one.occurrence for one in session.current)
                    raise
                if not connection.closed:
                    await self.lease.release(connection)
            finally:
                await bus.close()

    async def _acquire_leadership(self, connection: AsyncConnection[Any]) -> bool:
        """Wait for the lease; False when this copy is stopped before."""
        if self.lease.epoch is not None:
            # This copy's connection was lost, and the lease may still be its own.
            with contextlib.suppress(LeaseLost):
                await self.lease.renew(connection)
                return True
        said = False
        while not await self.lease.acquire(connection):
            if not said:
                _log.info("standing by: another copy of consumer %s leads", self.consumer.name)
                said = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _STAND_BY_SECONDS)
            if self.stopping.is_set():
                return False
        _log.info("leading: consumer %s, epoch %s", self.consumer.name, self.lease.epoch)
        return True
