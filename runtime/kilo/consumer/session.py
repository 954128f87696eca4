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
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

from kilo.bus import Bus, BusError, Received
from kilo.consumer import inbox
from kilo.consumer.attempts import Attempts
from kilo.consumer.event import Envelope, Unreadable, envelope, stand_in
from kilo.consumer.failure import Failure
from kilo.consumer.letters import Letters
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.retention import RetentionCheck
from kilo.consumer.retries import Retries
from kilo.pace import Pace

if TYPE_CHECKING:
    from kilo.consumer.runner import Runner

_ALIVE_SECONDS = 1.0


class Session:
    """The work of ``runner``'s copy while it leads and database and bus answer."""

    def __init__(self, runner: Runner, connection: AsyncConnection[Any], bus: Bus) -> None:
        self._runner = runner
        self._consumer = runner.consumer
        self._lease = runner.lease
        self._connection = connection
        self._bus = bus
        self._stream = runner.connections.stream
        self._metrics = ConsumerMetrics.shared()
        self._attempts = Attempts(runner, connection)
        self._letters = Letters(runner, connection)
        self._retries = Retries(connection, self._consumer.name, self._consumer.batch_bytes)
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
        pace = Pace()
        try:
            while not stop.done():
                await pace.rest()
                following = following or asyncio.ensure_future(anext(reading))
                # A bus that says nothing must not cost the lease.
                await asyncio.wait(
                    [following, stop], return_when=asyncio.FIRST_COMPLETED, timeout=_ALIVE_SECONDS
                )
                if following.done():
                    batch, following = following.result(), None
                    if batch:
                        with pace.batch(full=len(batch) >= self._consumer.batch // 2):
                            await retention.follow(batch)
                            await self._handle(batch)
                if self._lease.due:
                    await self._lease.renew(self._connection)
                await self._retry()
        finally:
            stop.cancel()
            alive.cancel()
            self._attempts.close()
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

    @asynccontextmanager
    async def _handling(self, events: Sequence[Envelope], to: Received) -> AsyncGenerator[inbox.Taken]:
        """A transaction in which ``events`` are handled; one statement fences it and takes them."""
        self.current = events
        async with self._connection.transaction():
            if self._lease.due:
                await self._lease.renew(self._connection)
            taken = await inbox.take(
                self._connection, self._lease, self._consumer.name, self._stream, to, events
            )
            yield taken
            await inbox.allow_commit(self._connection)
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
                async with self._handling(envelopes, batch[-1]) as taken:
                    for one, error in unreadable:
                        await self._letters.park_unreadable(one, error)
                    await self._attempt(envelopes, taken)
            except Failure as failure:
                known = failure if failure.sure else None
            else:
                return
        await self._one_by_one(envelopes, unreadable, batch, known)

    async def _attempt(
        self, events: Sequence[Envelope], taken: inbox.Taken, known: Failure | None = None
    ) -> None:
        """Give every event that is new to its handler; what is held behind another becomes a dead letter.

        Raises:
            Failure: a handler failed, or had when the batch was tried: ``known`` is no attempt more.
        """
        fresh = set(taken.fresh)
        new: list[Envelope] = []
        for one in events:
            if one.ordering_key in taken.blocked:
                await self._letters.hold_behind(one)
            elif one.occurrence in fresh:
                fresh.discard(one.occurrence)  # twice in one batch is a duplicate too
                new.append(one)
            else:
                self._metrics.count(one.kind, "duplicate")
        if known is not None and known.one in new:
            raise known
        await self._attempts.at(new)

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
                await self._letters.park_unreadable(one, error)
        for one in envelopes:
            try:
                async with self._handling([one], received[one.position]) as taken:
                    await self._attempt([one], taken, known or self._letters.lost(one))
            except Failure as failure:
                async with self._fenced():
                    await self._letters.fail(failure)
                    await self._move(received[one.position])
                self._runner.clear([one])
                self.current = ()
        async with self._transaction():
            await self._move(batch[-1])

    async def _move(self, to: Received) -> None:
        await inbox.move(self._connection, self._consumer.name, self._stream, to)

    async def _retry(self) -> None:
        """Try again what is due of the dead letters."""
        async for letter in self._retries.due():
            one = letter.one
            try:
                async with self._transaction([one]):
                    self._check_event(letter.received, one)
                    lost = self._letters.lost(one)
                    if lost is not None:
                        raise lost
                    await inbox.forbid_commit(self._connection, self._consumer.name, self._stream)
                    fresh = await inbox.claim(self._connection, self._consumer.name, [one])
                    if fresh:
                        await self._attempts.at([one])
                    await self._retries.done(letter)
            except Failure as failure:
                _, policy = self._consumer.handler_for(one.kind)
                async with self._fenced():
                    again = await self._retries.failed(letter, failure, policy)
                self._runner.clear([one])
                self.current = ()
                self._letters.report(failure, again=again)
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
