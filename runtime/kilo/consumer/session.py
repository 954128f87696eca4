"""The loop of the copy that works: reads a stream from its own position and gives each event to its handler.

A batch is one transaction: inbox rows, the handlers' writes, the position. When a handler fails, the
batch is rolled back and its events go one by one, so that only the one that fails becomes a dead letter. It
is tried again by what the tables say, later events of its ordering key are held behind it, and nobody else
is.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

from kilo.bus import Bus, BusError, Received, same_history
from kilo.consumer import inbox
from kilo.consumer.event import Envelope, Event, Occurrence, Unreadable, envelope, event, payload_of
from kilo.consumer.failure import (
    DatabaseLost,
    Failure,
    HandlerEndedTransaction,
    describe,
    is_cancelled,
    is_lost,
    stack_digest,
)
from kilo.consumer.handlers import Handler, Writer
from kilo.consumer.interruptions import Interruptions
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.policy import Policy
from kilo.consumer.retries import DeadLetter, Retries
from kilo.consumer.statements import Statements
from kilo.consumer.sync import SyncHandlers
from kilo.database.lease import Lease, LeaseLost
from kilo.observe.spans import exporting, span
from kilo.sensitive import places, reveal

if TYPE_CHECKING:
    from kilo.consumer.consumer import Consumer, ConsumerContext

_log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 3.0
_UNTRACED = contextlib.nullcontext()


class Session:
    """Consumes while database and bus answer and the lease holds."""

    def __init__(
        self,
        consumer: Consumer,
        connection: AsyncConnection[Any],
        bus: Bus,
        context: ConsumerContext,
        *,
        lease: Lease,
        interruptions: Interruptions,
    ) -> None:
        self._consumer = consumer
        self._connection = connection
        self._bus = bus
        self._stream = context.stream
        self._cipher = context.cipher
        self._lease = lease
        self._interruptions = interruptions
        self._metrics = ConsumerMetrics.shared()
        self._retries = Retries(connection, consumer.name)
        self._sync = SyncHandlers()
        self._traced = exporting()

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until ``stopping`` is set.

        Raises:
            LeaseLost: another copy works now.
            BusError, psycopg.Error: a part is away, or the handler's connection ended.
        """
        position, stored_at = await inbox.position(self._connection, self._consumer.name, self._stream)
        if not await same_history(self._bus, self._stream, position, stored_at):
            # The stream was made anew or restored from before: the inbox knows what had its effect.
            _log.warning(
                "stream %s is not the one of which %d was read: reading it whole", self._stream, position
            )
            position = 0
        stop, beating = asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(self._beat())
        reading = self._bus.read(self._stream, position, self._consumer.batch, self._consumer.batch_bytes)
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
            beating.cancel()
            self._sync.close()
            with contextlib.suppress(BusError, RuntimeError):
                await reading.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None]:
        """A transaction that commits only while the lease is this copy's."""
        async with self._connection.transaction():
            yield
            await inbox.allow_commit(self._connection)
            # At the end: a lock on the lease that a long handler held would keep every successor waiting.
            await self._lease.fence(self._connection)

    async def _handle(self, batch: Sequence[Received]) -> None:
        envelopes: list[Envelope] = []
        unreadable: list[tuple[Envelope, Unreadable]] = []
        for received in batch:
            try:
                envelopes.append(envelope(received))
            except Unreadable as error:
                unreadable.append((inbox.stand_in(received, self._stream), error))
        if batch[0].position <= self._interruptions.alone_until:
            await self._one_by_one(envelopes, unreadable, batch, None)
            return
        known = None
        try:
            async with self._transaction():
                await self._move(batch[-1])
                for one, error in unreadable:
                    await self._park_unreadable(one, error)
                await self._attempt(envelopes)
        except Failure as failure:
            known = failure if failure.sure else None
        except LeaseLost:
            raise
        except Exception as error:
            if is_lost(self._connection):
                self._interruptions.alone_until = batch[-1].position
                raise
            # Something that no handler did: which event it is about shows one by one.
            _log.warning("a batch of %d failed and goes one by one: %s", len(batch), describe(error))
        else:
            return
        await self._one_by_one(envelopes, unreadable, batch, known)

    async def _attempt(self, envelopes: Sequence[Envelope], known: Failure | None = None) -> None:
        """Give every event that is new to its handler; what must wait behind another is parked too.

        Raises:
            Failure: a handler failed, or had when the batch was tried: ``known`` is no attempt more.
        """
        if not envelopes:
            return
        consumer, connection = self._consumer.name, self._connection
        blocked = await inbox.blocked_keys(connection, consumer, envelopes)
        held = [each for each in envelopes if each.ordering_key in blocked]
        free = [each for each in envelopes if each.ordering_key not in blocked] if blocked else envelopes
        for one in held:
            await self._hold_behind(one)
        fresh = await inbox.claim(connection, consumer, free) if free else set[Occurrence]()
        new: list[Envelope] = []
        for one in free:
            if one.occurrence in fresh:
                fresh.discard(one.occurrence)  # twice in one batch is a duplicate too
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
        secrets: list[str] = []
        try:
            for one in events:
                payload = await self._revealed(one, secrets)
                given = event(one, payload)
                with self._span(given):
                    writer(given, statements)
            async with asyncio.timeout(self._consumer.handler_for(one.kind)[1].timeout_seconds):
                await statements.execute(self._connection)
            self._check_transaction()
        except BaseException as error:
            self._raise_lost(error)
            # Statements that went out together: which of them was refused is not known.
            raise Failure(one, error, sure=len(events) == 1, secrets=secrets) from None
        self._metrics.written(events, time.perf_counter() - started)

    async def _call(self, one: Envelope) -> None:
        """One attempt of the handler, in the transaction that is open.

        Raises:
            Failure: it did not do it.
        """
        writer = self._consumer.writer_for(one.kind)
        if writer is not None:
            await self._write(writer, [one])
            return
        handler, policy = self._consumer.handler_for(one.kind)
        if handler is None:
            return
        started = time.perf_counter()
        secrets: list[str] = []
        try:
            given = event(one, await self._revealed(one, secrets))
            with self._span(given):
                await self._run(handler, given, policy)
            self._check_transaction()
        except BaseException as error:
            self._raise_lost(error)
            raise Failure(one, error, secrets=secrets) from None
        self._metrics.handled(one, (datetime.now(UTC) - one.created_at).total_seconds(), started)

    async def _run(self, handler: Handler, given: Event, policy: Policy) -> None:
        if inspect.iscoroutinefunction(handler):
            async with asyncio.timeout(policy.timeout_seconds):
                await handler(given, self._connection)
        else:
            await self._sync.run(handler, given, self._connection, policy.timeout_seconds)

    async def _beat(self) -> None:
        """Tell the server that this process lives while a handler waits for something else.

        The server ends a transaction whose client says nothing: a frozen process says nothing.
        """
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            state = self._connection.pgconn
            waits = state.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)
            if waits and state.pipeline_status == PipelineStatus.OFF and not self._connection.lock.locked():
                with contextlib.suppress(psycopg.Error):
                    await self._connection.execute("SELECT")

    async def _revealed(self, one: Envelope, secrets: list[str]) -> Any:
        """The payload with its sensitive fields in plain, which are noted in ``secrets``."""
        stored = payload_of(one)
        payload = await reveal(self._cipher, one.tenant, one.fingerprint, stored)
        if payload is not stored:
            fields = await self._cipher.revealed_fields(one.tenant)
            secrets.extend(str(holder[field]) for holder, field, _ in places(fields, payload))
        return payload

    def _check_transaction(self) -> None:
        if not is_lost(self._connection) and (
            self._connection.pgconn.transaction_status != TransactionStatus.INTRANS
        ):
            raise HandlerEndedTransaction

    def _raise_lost(self, error: BaseException) -> None:
        """Raise ``error`` where it is not the handler's: the process is to end, or the connection has."""
        if isinstance(error, LeaseLost) or is_cancelled(error) or is_lost(self._connection):
            raise error

    async def _one_by_one(
        self,
        envelopes: Sequence[Envelope],
        unreadable: Sequence[tuple[Envelope, Unreadable]],
        batch: Sequence[Received],
        known: Failure | None,
    ) -> None:
        received = {each.position: each for each in batch}
        for one, error in unreadable:
            async with self._transaction():
                await self._park_unreadable(one, error)
        for one in envelopes:
            failure = await self._attempt_alone(one, received[one.position], known)
            if failure is not None:
                async with self._transaction():
                    await self._fail(failure)
                    await self._move(received[one.position])
        async with self._transaction():
            await self._move(batch[-1])

    async def _attempt_alone(
        self, one: Envelope, received: Received, known: Failure | None
    ) -> Failure | None:
        if self._interruptions.too_many(one):
            return Failure(one, DatabaseLost())
        try:
            async with self._transaction():
                await self._move(received)
                await self._attempt([one], known)
        except Failure as failure:
            return failure
        except LeaseLost:
            raise
        except Exception as error:
            if is_lost(self._connection):
                self._interruptions.count(one)
                raise
            # The tables refuse this event, whatever its handler would do.
            return Failure(one, error)
        return None

    async def _move(self, to: Received) -> None:
        await inbox.move(self._connection, self._consumer.name, self._stream, to)

    async def _fail(self, failure: Failure) -> None:
        one, error = failure.one, failure.error
        _, policy = self._consumer.handler_for(one.kind)
        again = policy.attempts > 1 and policy.retries(error)
        await inbox.park(
            self._connection,
            self._consumer.name,
            one,
            state="retrying" if again else "parked",
            error=failure.description,
            stack_digest=stack_digest(error),
            attempts=1,
            pause_seconds=policy.pause_seconds(1) * random.uniform(0.5, 1.0) if again else None,  # noqa: S311  jitter
            # While it is tried again, later ones are always held: that is what keeps their order.
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
            inbox.storable(one.headers).get("traceparent", "none"),
        )
        self._metrics.count(one.kind, "retried" if again else "parked")
        if not again:
            self._metrics.parked(one)

    async def _hold_behind(self, one: Envelope) -> None:
        await inbox.park(self._connection, self._consumer.name, one, state="waiting")
        self._metrics.count(one.kind, "parked")

    async def _park_unreadable(self, one: Envelope, error: Unreadable) -> None:
        await inbox.park(
            self._connection,
            self._consumer.name,
            one,
            state="parked",
            error=describe(error),
            stack_digest=stack_digest(error),
            attempts=1,
            holds=False,
        )
        self._metrics.count(one.kind, "parked")
        self._metrics.parked(one)

    async def _retry(self) -> None:
        """Try the dead letters that are due."""
        async for letter in self._retries.due():
            one = letter.one
            failure = await self._retry_one(letter)
            if failure is not None:
                _, policy = self._consumer.handler_for(one.kind)
                async with self._transaction():
                    again = await self._retries.failed(letter, failure, policy)
                self._failed(failure, again=again)
            elif "replay-of" in one.headers:
                self._metrics.replayed(one)

    async def _retry_one(self, letter: DeadLetter) -> Failure | None:
        one = letter.one
        if self._interruptions.too_many(one):
            return Failure(one, DatabaseLost())
        try:
            async with self._transaction():
                await inbox.forbid_commit(self._connection, self._consumer.name, self._stream)
                fresh = await inbox.claim(self._connection, self._consumer.name, [one])
                if fresh:
                    await self._call(one)
                await self._retries.done(one)
        except Failure as failure:
            return failure
        except LeaseLost:
            raise
        except Exception as error:
            if is_lost(self._connection):
                self._interruptions.count(one)
                raise
            return Failure(one, error)
        return None

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
