"""Runs handlers that are plain functions: in a thread, writing in the consumer's transaction.

The thread has no connection of its own. What it executes is done by the event loop on the connection whose
transaction holds the inbox row, so a plain handler's writes are as exactly once as an async one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import Params, QueryNoTemplate

from kilo.consumer.event import Event


class Rows:
    """What a statement gave, fetched whole."""

    def __init__(self, rowcount: int, rows: Sequence[Any]) -> None:
        self.rowcount = rowcount
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """The next row, or none."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class SyncConnection:
    """The transaction that a plain handler writes in, as far as a handler needs a connection."""

    def __init__(self, connection: AsyncConnection[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._task: asyncio.Task[Rows] | None = None
        self._closed = False

    def execute(self, query: QueryNoTemplate, params: Params | None = None) -> Rows:
        """Execute one statement; waits in the handler's thread.

        Raises:
            psycopg.Error: the database refuses it.
            TimeoutError: the attempt was given up meanwhile.
        """
        return asyncio.run_coroutine_threadsafe(self._run(query, params), self._loop).result()

    def executemany(self, query: QueryNoTemplate, params: Sequence[Params]) -> int:
        """Execute one statement for each of ``params``, pipelined; the number of rows that it changed."""

        async def run() -> Rows:
            async with self._connection.cursor() as cursor:
                await cursor.executemany(query, params)
                return Rows(cursor.rowcount, ())

        return asyncio.run_coroutine_threadsafe(self._guarded(run), self._loop).result().rowcount

    async def close(self) -> None:
        """End what is under way; whatever the handler still wants to execute is refused."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    async def _run(self, query: QueryNoTemplate, params: Params | None) -> Rows:
        async def run() -> Rows:
            cursor = await self._connection.execute(query, params)
            return Rows(cursor.rowcount, await cursor.fetchall() if cursor.description else ())

        return await self._guarded(run)

    async def _guarded(self, run: Callable[[], Coroutine[Any, Any, Rows]]) -> Rows:
        if self._closed:
            msg = "this attempt of the handler was given up; what it does now has no effect"
            raise TimeoutError(msg)
        self._task = task = asyncio.ensure_future(run())
        try:
            return await task
        finally:
            self._task = None


class SyncHandlers:
    """Runs plain handlers one after the other; a thread that hangs is left to itself and replaced."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None

    async def run(
        self,
        handler: Callable[[Event, Any], object],
        event: Event,
        connection: AsyncConnection[Any],
        timeout_seconds: float,
    ) -> None:
        """Run ``handler``.

        Raises:
            TimeoutError: it took longer.
            TypeError: it is an async function in disguise.
            Exception: whatever it raised.
        """
        loop = asyncio.get_running_loop()
        given = SyncConnection(connection, loop)
        done: asyncio.Future[object] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                result, error = context.run(handler, event, given), None
            except BaseException as caught:
                result, error = None, caught
            with contextlib.suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(_settle, done, result, error)

        self._thread().put(call)
        try:
            result = await asyncio.wait_for(done, timeout_seconds)
        except BaseException:
            if not done.done() or done.cancelled():
                await given.close()
                self.close()
            raise
        if inspect.isawaitable(result):
            msg = "the handler returned an awaitable: make it an async function"
            raise TypeError(msg)

    def close(self) -> None:
        """Let the thread end when its handler returns."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _thread(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            # A daemon: one that hangs must not keep the process from ending.
            threading.Thread(target=_serve, args=(self._calls,), name="handlers", daemon=True).start()
        return self._calls


def _serve(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while call := calls.get():
        call()


def _settle(done: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        done.set_exception(error)
    else:
        done.set_exception(RuntimeError(f"the handler raised {type(error).__name__}"))
