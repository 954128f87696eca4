"""Attempts at the effects of events, in the consumer's transaction: calls handlers, says whose failure it is.

Whatever comes out of a handler is its event's failure, a cancellation too, and so is what it did to the
transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from kilo.consumer.event import Envelope, Event, check_schema, event, payload_of
from kilo.consumer.failure import Failure, HandlerCancelled, TransactionEnded
from kilo.consumer.handlers import Writer
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.statements import Statements
from kilo.consumer.sync import SyncHandlers
from kilo.context import acting_for
from kilo.observe.spans import exporting, span
from kilo.sensitive import reveal

if TYPE_CHECKING:
    from kilo.consumer.runner import Runner


class Attempts:
    """Calls the handlers of ``runner``'s consumer with its ``connection``."""

    def __init__(self, runner: Runner, connection: AsyncConnection[Any]) -> None:
        self._runner = runner
        self._consumer = runner.consumer
        self._connection = connection
        self._cipher = runner.connections.cipher
        self._metrics = ConsumerMetrics.shared()
        self._sync = SyncHandlers()
        self._traced = exporting()

    def close(self) -> None:
        """Let the thread of plain handlers end."""
        self._sync.close()

    async def at(self, events: Sequence[Envelope]) -> None:
        """Give each of ``events`` to its handler, in their order.

        Raises:
            Failure: a handler failed; nothing of the transaction may be kept.
        """
        for writer, some in itertools.groupby(events, lambda one: self._consumer.writer_for(one.kind)):
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
                given = event(one, await self._payload(one))
                with self._around(given):
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
        handler, policy = self._consumer.handler_for(one.kind)
        if handler is None:
            return
        started = time.perf_counter()
        try:
            given = event(one, await self._payload(one))
            with self._around(given):
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

    async def _payload(self, one: Envelope) -> Any:
        """What the handler gets.

        Raises:
            Unreadable: it is no JSON, or not what the schema of its kind says.
        """
        payload = await reveal(self._cipher, one.tenant, one.fingerprint, payload_of(one))
        check_schema(one.kind, payload)
        return payload

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
            TransactionStatus.ACTIVE,  # the consumer says that it is alive at this moment
            TransactionStatus.UNKNOWN,  # the connection is gone, as the next statement finds
        }:
            raise TransactionEnded

    def _around(self, given: Event) -> AbstractContextManager[None]:
        """Work for the event's tenant and in its trace, so that what the handler writes belongs to both."""
        # There is one of these an event.
        return self._traced_around(given) if self._traced else acting_for(given.tenant, given.traceparent)

    @contextmanager
    def _traced_around(self, given: Event) -> Generator[None]:
        """In a span of the event's own trace; a replay's is one of its own that links to the original."""
        replayed = given.replay_of is not None
        with (
            span(
                f"handle {given.kind}",
                None if replayed else given.traceparent,
                kind=SpanKind.CONSUMER,
                link=given.traceparent if replayed else None,
                attributes={"kilo.tenant": given.tenant, "kilo.fingerprint": given.fingerprint},
            ) as here,
            acting_for(given.tenant, here),
        ):
            yield
