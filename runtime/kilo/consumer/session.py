"""The loop of the copy that leads: batches from the bus, and dead letters whose time has come.

A batch is one transaction: inbox rows, the handlers' writes, the position. When a handler fails, the batch
is rolled back and its events go one by one, so that only the one that fails becomes a dead letter. It is
tried again by what the tables say, later events of its ordering key are held behind it, and nobody else's.

Whatever comes out of a handler is its event's failure. That the connection is gone is seen by the next
statement of the consumer itself; an event that was being handled each time this happened is parked, too.
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
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from kilo.bus import Bus, BusError, Received
from kilo.consumer import inbox
from kilo.consumer.event import Envelope, Event, Unreadable, envelope, event, payload_of, stand_in
from kilo.consumer.failure import (
    ConnectionLost,
    Failure,
    HandlerCancelled,
    TransactionEnded,
    describe,
    stack_digest,
)
from kilo.consumer.handlers import Writer
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.retention import RetentionCheck
from kilo.consumer.retries import Retries
from kilo.consumer.statements import Statements
from kilo.consumer.sync import SyncHandlers
from kilo.observe.spans import exporting, span
from kilo.sensitive import reveal

if TYPE_CHECKING:
    from kilo.consumer.runner import Runner

_log = logging.getLogger(__name__)

_UNTRACED = contextlib.nullcontext()
_ALIVE_SECONDS = 1.0
_LOSSES = 3
"""How often at least the connection must end during one event before that counts as the handler's doing."""


class Session:
    """The work of ``runner``'s copy while it leads and database and bus answer."""

    def __init__(self, runner: Runner, connection: AsyncConnection[Any], bus: Bus) -> None:
        self._runner = runner
        self._consumer = runner.consumer
        self._lease = runner.lease
        self._connection = connection
        self._bus = bus
        self._stream = runner.connections.stream
        self._cipher = runner.connections.cipher
        self._metrics = ConsumerMetrics.shared()
        self._retries = Retries(connection, self._consumer.name, self._consumer.batch_bytes)
        self._sync = SyncHandlers()
        self._traced = exporting()
        self.current: Sequence[Envelope] = ()
        """What is being handled, until its transaction is over."""

    async def run(self) -> None:
        """Work until the runner is stopped.

        Raises:
            BehindRetention: messages are gone unread, and the consumer's policy is to stop.
        """
        retention = RetentionCheck(self._consumer, self._stream, self._connection, self._bus, self._fenced)
        position = await retention.begin()
        self._runner.health.fine("retention")
        stop = asyncio.ensure_future(self._runner.stopping.wait())
        alive = asyncio.ensure_future(self._say_alive())
        reading = self._bus.read(self._stream, position, self._consumer.batch, self._consumer.batch_bytes)
        following: asyncio.Future[Sequence[Received]] | None = None
        try:
            while not stop.done():
                following = following or asyncio.ensure_future(anext(reading))
                # A bus that says nothing must not cost the lease.
                await asyncio.wait(
                    [following, stop], return_when=asyncio.FIRST_COMPLETED, timeout=_ALIVE_SECONDS
                )
                if following.done():
                    batch, following = following.result(), None
                    if batch:
                        await retention.follow(batch)
                        await self._handle(batch)
                if self._lease.due:
                    await self._lease.renew(self._connection)
                await self._retry()
        finally:
            stop.cancel()
            alive.cancel()
            self._sync.close()
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await following
            with contextlib.suppress(asyncio.CancelledError, psycopg.Error):
                await alive
            with contextlib.suppress(BusError, RuntimeError):
                await reading.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    async def _say_alive(self) -> None:
        """Keep a transaction from counting as idle while its handler does something else."""
        while not self._connection.closed:
            await asyncio.sleep(_ALIVE_SECONDS)
            state = self._connection.pgconn
            if (
                state.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}
                and state.pipeline_status == PipelineStatus.OFF
            ):
                with contextlib.suppress(psycopg.Error):
                    await self._connection.execute("SELECT")

    @asynccontextmanager
    async def _fenced(self) -> AsyncGenerator[None]:
        """A transaction fenced by the lease, which only the consumer commits once it has moved on."""
        async with self._lease.fenced(self._connection):
            yield
            await inbox.allow_commit(self._connection)

    @asynccontextmanager
    async def _transaction(self, events: Sequence[Envelope] = ()) -> AsyncGenerator[None]:
        """A transaction fenced by the lease, in which ``events`` are handled."""
        self.current = events
        async with self._fenced():
            yield
        self._runner.clear(events)
        self.current = ()

    async def _handle(self, batch: Sequence[Received]) -> None:
        envelopes: list[Envelope] = []
        unreadable: list[tuple[Envelope, Unreadable]] = []
        for received in batch:
            try:
                envelopes.append(envelope(received))
            except Unreadable as error:
                unreadable.append((stand_in(received, self._stream), error))
        known: Failure | None = None
        if not any(map(self._runner.is_suspect, envelopes)):
            try:
                async with self._transaction(envelopes):
                    await self._move(batch[-1])
                    for one, error in unreadable:
                        await self._park_unreadable(one, error)
                    await self._attempt(envelopes)
            except Failure as failure:
                known = failure if failure.sure else None
            else:
                return
        await self._one_by_one(envelopes, unreadable, batch, known)

    async def _attempt(self, envelopes: Sequence[Envelope], known: Failure | None = None) -> None:
        """Give every event that is new to its handler; what is held behind another becomes a dead letter.

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
        fresh = await inbox.claim(connection, consumer, free) if free else set[tuple[str, str, datetime]]()
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
            Failure: of one of them, which is not known when the statements of several went out together.
        """
        started, one, out = time.perf_counter(), events[0], False
        statements = Statements()
        try:
            for one in events:
                given = event(one, await reveal(self._cipher, one.tenant, one.fingerprint, payload_of(one)))
                with self._span(given):
                    writer(given, statements)
            out = True
            async with asyncio.timeout(self._consumer.handler_for(one.kind)[1].timeout_seconds):
                await statements.execute(self._connection)
            self._check_transaction()
        except asyncio.CancelledError as error:
            raise await self._cancelled(one, error) from error
        except (Exception, SystemExit) as error:
            raise Failure(one, error, sure=not out or len(events) == 1) from error
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
            self._check_transaction()
        except asyncio.CancelledError as error:
            raise await self._cancelled(one, error) from error
        except (Exception, SystemExit) as error:
            raise Failure(one, error) from error
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise await self._cancelled(one, None)
        self._metrics.handled(one, (datetime.now(UTC) - one.created_at).total_seconds(), started)

    async def _cancelled(self, one: Envelope, error: asyncio.CancelledError | None) -> Failure:
        """The failure of ``one``, whose handler was cancelled or cancelled itself.

        Raises:
            CancelledError: it is the consumer that is cancelled.
        """
        if self._runner.cancelled:
            raise error or asyncio.CancelledError
        task = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # where a cancellation that was asked for comes out
        while task is not None and task.cancelling():
            task.uncancel()
        reason = HandlerCancelled()
        return Failure(one, reason.with_traceback(error.__traceback__ if error else None))

    def _check_transaction(self) -> None:
        """Refuse what a handler did to the consumer's transaction.

        Raises:
            TransactionEnded: it was committed or rolled back, or a refused statement made it void.
        """
        self._connection.row_factory = tuple_row
        if self._connection.pgconn.transaction_status not in {
            TransactionStatus.INTRANS,
            TransactionStatus.UNKNOWN,  # the connection is gone, as the next statement finds
        }:
            raise TransactionEnded

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
            try:
                async with self._transaction([one]):
                    await self._move(received[one.position])
                    await self._attempt([one], known or self._lost(one))
            except Failure as failure:
                async with self._fenced():
                    await self._fail(failure)
                    await self._move(received[one.position])
                self._runner.clear([one])
                self.current = ()
        async with self._transaction():
            await self._move(batch[-1])

    def _lost(self, one: Envelope) -> Failure | None:
        """The failure of ``one`` when the connection ended too often while it was handled."""
        _, policy = self._consumer.handler_for(one.kind)
        many = self._runner.losses(one) >= max(policy.attempts, _LOSSES)
        return Failure(one, ConnectionLost()) if many else None

    async def _move(self, to: Received) -> None:
        await inbox.move(self._connection, self._consumer.name, self._stream, to)

    async def _fail(self, failure: Failure) -> None:
        one, error = failure.one, failure.error
        _, policy = self._consumer.handler_for(one.kind)
        lost = isinstance(error, ConnectionLost)
        again = not lost and policy.attempts > 1 and policy.retryable(error)
        await inbox.keep(
            self._connection,
            self._consumer.name,
            one,
            state="retrying" if again else "parked",
            error=describe(error),
            stack_digest=stack_digest(error),
            attempts=self._runner.losses(one) if lost else 1,
            pause_seconds=policy.pause_seconds(1) * random.uniform(0.5, 1.0) if again else None,  # noqa: S311
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
            describe(failure.error),
            "trying again" if again else "parked",
            one.headers.get("traceparent", "none"),
        )
        self._metrics.count(one.kind, "retried" if again else "parked")
        if not again:
            self._metrics.parked(one)

    async def _hold_behind(self, one: Envelope) -> None:
        await inbox.keep(self._connection, self._consumer.name, one, state="waiting")
        self._metrics.count(one.kind, "parked")

    async def _park_unreadable(self, one: Envelope, error: Unreadable) -> None:
        await inbox.keep(
            self._connection,
            self._consumer.name,
            one,
            state="parked",
            error=describe(error),
            stack_digest=stack_digest(error),
            attempts=1,
        )
        _log.warning("message %d of stream %s is parked: %s", one.position, self._stream, error)
        self._metrics.count(one.kind, "parked")
        self._metrics.parked(one)

    async def _retry(self) -> None:
        """Try again what is due of the dead letters."""
        async for letter in self._retries.due():
            one = letter.one
            try:
                async with self._transaction([one]):
                    self._check_event(letter.received, one)
                    lost = self._lost(one)
                    if lost is not None:
                        raise lost
                    await inbox.forbid_commit(self._connection, self._consumer.name, self._stream)
                    fresh = await inbox.claim(self._connection, self._consumer.name, [one])
                    if fresh:
                        await self._call(one)
                    await self._retries.done(letter)
            except Failure as failure:
                _, policy = self._consumer.handler_for(one.kind)
                async with self._fenced():
                    again = await self._retries.failed(letter, failure, policy)
                self._runner.clear([one])
                self.current = ()
                self._failed(failure, again=again)
            else:
                if "replay-of" in one.headers:
                    self._metrics.replayed(one)

    def _check_event(self, received: Received, one: Envelope) -> None:
        """Refuse a letter that was no event when it came: an edit of its payload does not make it one.

        Raises:
            Failure: it is none.
        """
        try:
            envelope(received)
        except Unreadable as error:
            raise Failure(one, error) from error

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
