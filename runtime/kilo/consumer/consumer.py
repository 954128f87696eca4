"""The consumer: leads or stands by, and starts again when database or bus were away.

Several copies may run: one works, the others stand by for its lease (:mod:`kilo.database.lease`). Every
transaction of the one that works checks the lease before it commits, so a copy that was frozen or cut off and
comes back can't commit what its successor has done meanwhile. That is what keeps order over copies; a second
active copy would still have one effect an event, by the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError
from kilo.consumer.failure import describe
from kilo.consumer.handlers import Handlers
from kilo.consumer.interruptions import Interruptions
from kilo.consumer.policy import Policy
from kilo.consumer.session import Session
from kilo.database import session as database
from kilo.database.lease import RENEW_SECONDS, Lease, LeaseLost
from kilo.health import Health
from kilo.sensitive import PayloadCipher

_log = logging.getLogger(__name__)

BATCH_BYTES = 8 * 1024 * 1024
_PAUSE_LONGEST_SECONDS = 5.0
_STAND_BY_SECONDS = 0.5

# A transaction is as long as its handlers take, so only one whose client says nothing is ended: the session
# sends something every _HEARTBEAT_SECONDS while a handler waits for something else.
LIMITS = database.SessionLimits(idle_in_transaction=10.0, transaction=0.0, lock=0.0)
_LEASE_LIMITS = database.SessionLimits()


@dataclass(frozen=True, slots=True)
class ConsumerContext:
    """What a consumer works with.

    Attributes:
        database_url: with the credentials of a role that may write the consumer's tables and its own.
        connect_bus: connects to the bus; called again whenever the connection is lost.
        stream: what is consumed.
        cipher: reveals the sensitive fields of payloads.
    """

    database_url: str
    connect_bus: Callable[[], Awaitable[Bus]]
    stream: str
    cipher: PayloadCipher


class Consumer(Handlers):
    """A named consumer and its handlers.

    Args:
        name: what its inbox and position go by; another name reads everything again.
        policy: for kinds that have none of their own.
        batch: events a transaction, at most; how long a transaction is.
        batch_bytes: bytes of payload a transaction, at most, or one event; what bounds memory.
    """

    def __init__(
        self, name: str, policy: Policy | None = None, batch: int = 500, batch_bytes: int = BATCH_BYTES
    ) -> None:
        super().__init__(name, policy or Policy())
        self.name = name
        self.batch = batch
        self.batch_bytes = batch_bytes

    async def run(
        self, context: ConsumerContext, stopping: asyncio.Event, health: Health | None = None
    ) -> None:
        """Consume until ``stopping`` is set; parts that are away are waited for, and nothing else ends it."""
        health = health or Health()
        interruptions = Interruptions()
        pause = 0.1
        while not stopping.is_set():
            started = time.monotonic()
            try:
                await self._lead_or_stand_by(context, stopping, health, interruptions)
            except LeaseLost as error:
                _log.warning("standing by: %s", error)
                pause = 0.1
            except Exception as error:
                part = "bus" if isinstance(error, BusError) else "database"
                reason = _reason(error)
                health.broken(part, reason)
                _log.warning("starting again in %.1f s: %s: %s", pause, part, reason)
                if time.monotonic() - started > 2 * _PAUSE_LONGEST_SECONDS:
                    pause = 0.1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(2 * pause, _PAUSE_LONGEST_SECONDS)

    async def _lead_or_stand_by(
        self,
        context: ConsumerContext,
        stopping: asyncio.Event,
        health: Health,
        interruptions: Interruptions,
    ) -> None:
        name = f"kilo-consumer {self.name}"
        url = context.database_url
        async with (
            await database.connect(url, name, LIMITS) as connection,
            await database.connect(url, f"{name} lease", _LEASE_LIMITS) as lease_connection,
        ):
            health.fine("database")
            bus = await context.connect_bus()
            health.fine("bus")
            lease = Lease(f"consumer/{self.name}", f"{socket.gethostname()}/{os.getpid()}")
            try:
                while not await lease.acquire(lease_connection):
                    if await _set_within(stopping, _STAND_BY_SECONDS):
                        return
                _log.info("consuming %s as %s (epoch %s)", context.stream, self.name, lease.epoch)
                async with _renewed(lease, lease_connection):
                    session = Session(
                        self, connection, bus, context, lease=lease, interruptions=interruptions
                    )
                    await session.run(stopping)
                with contextlib.suppress(psycopg.Error):
                    await lease.release(lease_connection)
            finally:
                await bus.close()


@contextlib.asynccontextmanager
async def _renewed(lease: Lease, connection: AsyncConnection[Any]) -> AsyncGenerator[None]:
    """Keep ``lease`` however long a handler takes, as long as this process runs at all."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await lease.renew(connection)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
        # What ended it, the next check of the lease finds too.
        with contextlib.suppress(asyncio.CancelledError, psycopg.Error, LeaseLost):
            await task


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _reason(error: Exception) -> str:
    """One line for logs and the health page: what a part said of itself, never what a row or message held."""
    known = isinstance(error, BusError | psycopg.OperationalError | TimeoutError | OSError)
    text = str(error).splitlines()[0] if known and str(error) else ""
    return text or describe(error)
