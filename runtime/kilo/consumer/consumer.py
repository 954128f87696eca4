"""The consumer: reads a stream from its own position and gives each event to its handler once.

A batch is one transaction: inbox rows, the handlers' writes, the position. When a handler fails, the
batch is rolled back and its events go one by one, so that only the one that fails is set aside. It is
tried again by what the tables say, its aggregate's later events wait behind it, and nobody else does.

Several copies may run: one works, the others stand by for its session's advisory lock. The lock lives
and dies with the connection that writes, so a copy that lost it can't commit. That is what keeps order
per aggregate over copies; a second active copy would still have one effect an event, by the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection

from kilo.bus import Bus, BusError, Received, same_history
from kilo.consumer import inbox
from kilo.consumer.event import Envelope, Event, Unreadable, envelope, event, payload_of
from kilo.consumer.failure import Failure, is_lost, stack_digest
from kilo.consumer.handlers import Handlers, Writer
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.policy import Policy
from kilo.consumer.retries import Retries
from kilo.consumer.statements import Statements
from kilo.consumer.sync import SyncHandlers
from kilo.health import Health
from kilo.observe.spans import exporting, span
from kilo.sensitive import PayloadCipher, reveal

_log = logging.getLogger(__name__)

_PAUSE_LONGEST_SECONDS = 5.0
_STAND_BY_SECONDS = 0.5
_UNTRACED = contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a consumer works.

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
        batch: events a transaction, at most; what bounds memory, and how long a transaction is.
    """

    def __init__(self, name: str, policy: Policy | None = None, batch: int = 500) -> None:
        super().__init__(name, policy or Policy())
        self.name = name
        self.batch = batch

    async def run(self, place: Place, stopping: asyncio.Event, health: Health | None = None) -> None:
        """Consume until ``stopping`` is set; parts that are away are waited for."""
        health = health or Health()
        pause = 0.1
        while not stopping.is_set():
            started = time.monotonic()
            try:
                await self._session(place, stopping, health)
            except (psycopg.OperationalError, psycopg.InterfaceError, BusError, TimeoutError) as error:
                part = "bus" if isinstance(error, BusError) else "database"
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                health.broken(part, reason)
                _log.warning("starting again in %.1f s: %s: %s", pause, part, reason)
                if time.monotonic() - started > 2 * _PAUSE_LONGEST_SECONDS:
                    pause = 0.1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(2 * pause, _PAUSE_LONGEST_SECONDS)

    async def _session(self, place: Place, stopping: asyncio.Event, health: Health) -> None:
        async with await AsyncConnection.connect(
            place.database_url,
            autocommit=True,
            connect_timeout=5,
            application_name=f"kilo-consumer {self.name}"[:63],
        ) as connection:
            health.fine("database")
            bus = await place.connect_bus()
            health.fine("bus")
            try:
                while not await self._lead(connection):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), _STAND_BY_SECONDS)
                    if stopping.is_set():
                        return
                await _Session(self, connection, bus, place).run(stopping)
            finally:
                await bus.close()

    async def _lead(self, connection: AsyncConnection[Any]) -> bool:
        cursor = await connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended('consumer/' || %s, 0))", (self.name,)
        )
        row = await cursor.fetchone()
        return bool(row and row[0])


class _Session:
    """The loop of the copy that works, while database and bus answer."""

    def __init__(self, consumer: Consumer, connection: AsyncConnection[Any], bus: Bus, place: Place) -> None:
        self._consumer = consumer
        self._connection = connection
        self._bus = bus
        self._stream = place.stream
        self._cipher = place.cipher
        self._metrics = ConsumerMetrics.shared()
        self._retries = Retries(connection, consumer.name)
        self._sync = SyncHandlers()
        self._traced = exporting()

    async def run(self, stopping: asyncio.Event) -> None:
        position, stored_at = await inbox.position(self._connection, self._consumer.name, self._stream)
        if not await same_history(self._bus, self._stream, position, stored_at):
            # The stream was made anew or restored from before: the inbox knows what had its effect.
            _log.warning(
                "stream %s is not the one of which %d was read: reading it whole", self._stream, position
            )
            position = 0
        stop = asyncio.ensure_future(stopping.wait())
        reading = self._bus.read(self._stream, position, self._consumer.batch)
        try:
            while not stopping.is_set():
                following = asyncio.ensure_future(anext(reading))
                await asyncio.wait([following, stop], return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError, BusError):
                        await following
                    return
                batch = following.result()
                if batch:
                    await self._handle(batch)
                await self._retry()
        finally:
            stop.cancel()
            self._sync.close()
            with contextlib.suppress(BusError, RuntimeError):
                await reading.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    async def _handle(self, batch: Sequence[Received]) -> None:
        envelopes: list[Envelope] = []
        unreadable: list[tuple[Envelope, Unreadable]] = []
        for received in batch:
            try:
                envelopes.append(envelope(received))
            except Unreadable as error:
                unreadable.append((inbox.stand_in(received, self._stream), error))
        try:
            async with self._connection.transaction():
                for one, error in unreadable:
                    await self._park_unreadable(one, error)
                await self._attempt(envelopes)
                await self._move(batch[-1])
        except Failure as failure:
            await self._one_by_one(envelopes, unreadable, batch, failure if failure.sure else None)

    async def _attempt(self, envelopes: Sequence[Envelope], known: Failure | None = None) -> None:
        """Give every event that is new to its handler; what must wait behind another is set aside.

        Raises:
            Failure: a handler failed, or had when the batch was tried: ``known`` is no attempt more.
        """
        if not envelopes:
            return
        consumer, connection = self._consumer.name, self._connection
        blocked = await inbox.blocked_lanes(connection, consumer, envelopes)
        waiting = [each for each in envelopes if each.lane in blocked]
        free = [each for each in envelopes if each.lane not in blocked] if blocked else envelopes
        for one in waiting:
            await self._wait_behind(one)
        fresh = await inbox.claim(connection, consumer, free) if free else set[str]()
        new: list[Envelope] = []
        for one in free:
            if one.fingerprint in fresh:
                fresh.discard(one.fingerprint)  # twice in one batch is a duplicate too
                new.append(one)
            else:
                self._metrics.count(one.kind, "duplicate")
        if known is not None and known.one in new:
            raise known
        for writer, some in itertools.groupby(new, lambda one: self._consumer.writer_for(one.kind)):
            if writer is not None:
                await self._write(writer, list(some))
            else:
                for one in some:
                    await self._call(one)

    async def _write(self, writer: Writer, events: Sequence[Envelope]) -> None:
        """One attempt at the effects of ``events``, in the transaction that is open.

        Raises:
            Failure: of one of them, which is not known when there are several.
        """
        started, one = time.perf_counter(), events[0]
        statements = Statements()
        try:
            for one in events:
                given = event(one, await reveal(self._cipher, one.tenant, one.fingerprint, payload_of(one)))
                with self._span(given):
                    writer(given, statements)
            async with asyncio.timeout(self._consumer.handler_for(one.kind)[1].timeout_seconds):
                await statements.execute(self._connection)
        except Exception as error:
            if is_lost(error, self._connection):
                raise
            # Statements that went out together: which of them was refused is not known.
            raise Failure(one, error, sure=len(events) == 1) from error
        self._metrics.written(events, time.perf_counter() - started)

    async def _call(self, one: Envelope) -> None:
        """One attempt of the handler, in the transaction that is open.

        Raises:
            Failure: it did not do it.
        """
        writer = self._consumer.writer_for(one.kind)
        if writer is not None:
            await self._write(writer, [one])
        handler, policy = self._consumer.handler_for(one.kind)
        if handler is None:
            return
        started = time.perf_counter()
        try:
            payload = await reveal(self._cipher, one.tenant, one.fingerprint, payload_of(one))
            given = event(one, payload)
            with self._span(given):
                if inspect.iscoroutinefunction(handler):
                    async with asyncio.timeout(policy.timeout_seconds):
                        await handler(given, self._connection)
                else:
                    await self._sync.run(handler, given, self._connection, policy.timeout_seconds)
        except Exception as error:
            if is_lost(error, self._connection):
                raise
            raise Failure(one, error) from error
        self._metrics.handled(one, (datetime.now(UTC) - one.created_at).total_seconds(), started)

    async def _one_by_one(
        self,
        envelopes: Sequence[Envelope],
        unreadable: Sequence[tuple[Envelope, Unreadable]],
        batch: Sequence[Received],
        known: Failure | None,
    ) -> None:
        received = {each.position: each for each in batch}
        for one, error in unreadable:
            async with self._connection.transaction():
                await self._park_unreadable(one, error)
        for one in envelopes:
            try:
                async with self._connection.transaction():
                    await self._attempt([one], known)
                    await self._move(received[one.position])
            except Failure as failure:
                async with self._connection.transaction():
                    await self._fail(failure, attempts=1)
                    await self._move(received[one.position])
        async with self._connection.transaction():
            await self._move(batch[-1])

    async def _move(self, to: Received) -> None:
        await inbox.move(self._connection, self._consumer.name, self._stream, to)

    async def _fail(self, failure: Failure, attempts: int) -> None:
        one, error = failure.one, failure.error
        _, policy = self._consumer.handler_for(one.kind)
        again = attempts < policy.attempts and policy.retryable(error)
        state = "retrying" if again else "parked"
        pause = min(policy.first_pause_seconds * 2 ** (attempts - 1), policy.longest_pause_seconds)
        await inbox.set_aside(
            self._connection,
            self._consumer.name,
            one,
            state=state,
            error=f"{type(error).__name__}: {error}",
            stack_digest=stack_digest(error),
            attempts=attempts,
            pause_seconds=pause * random.uniform(0.5, 1.0) if again else None,  # noqa: S311  jitter
            # While it is tried again, later ones always wait: that is what keeps their order.
            holds=again or policy.holds_aggregate,
        )
        self._failed(failure, again=again)

    def _failed(self, failure: Failure, *, again: bool) -> None:
        one = failure.one
        _log.warning(
            "%s of %s failed (%s), %s; trace %s",
            one.kind,
            one.fingerprint,
            type(failure.error).__name__,
            "trying again" if again else "parked",
            one.headers.get("traceparent", "none"),
        )
        self._metrics.count(one.kind, "retried" if again else "parked")
        if not again:
            self._metrics.parked(one)

    async def _wait_behind(self, one: Envelope) -> None:
        await inbox.set_aside(self._connection, self._consumer.name, one, state="waiting")
        self._metrics.count(one.kind, "parked")

    async def _park_unreadable(self, one: Envelope, error: Unreadable) -> None:
        await inbox.set_aside(
            self._connection,
            self._consumer.name,
            one,
            state="parked",
            error=f"{type(error).__name__}: {error}",
            stack_digest=stack_digest(error),
            attempts=1,
        )
        self._metrics.count(one.kind, "parked")
        self._metrics.parked(one)

    async def _retry(self) -> None:
        """Try again what is due of what was set aside."""
        async for one, attempts in self._retries.due():
            try:
                async with self._connection.transaction():
                    fresh = await inbox.claim(self._connection, self._consumer.name, [one])
                    if fresh:
                        await self._call(one)
                    await self._retries.done(one)
            except Failure as failure:
                _, policy = self._consumer.handler_for(one.kind)
                async with self._connection.transaction():
                    again = await self._retries.failed(failure, attempts + 1, policy)
                self._failed(failure, again=again)
            else:
                if "replay-of" in one.headers:
                    self._metrics.replayed(one)

    def _span(self, given: Event) -> AbstractContextManager[object]:
        """A span of the event's own trace; a replay's is one of its own that links to the original."""
        if not self._traced:
            return _UNTRACED
        replayed = given.replay_of is not None
        return span(
            f"handle {given.kind}",
            None if replayed else given.traceparent,
            kind=SpanKind.CONSUMER,
            link=given.traceparent if replayed else None,
            attributes={"kilo.tenant": given.tenant, "kilo.fingerprint": given.fingerprint},
        )
