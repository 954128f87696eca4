"""A pool of database connections for an HTTP service, and what it says of the service's readiness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from kilo.health import Health

_CHECK_SECONDS = 2.0


class Database:
    """Connections to PostgreSQL; ready while it answers.

    ::

        health = Health("database")
        database = Database(database_url(), health, name="orders")
        run(app, name="orders", port=8080, health=health, work=[database.run])

    In a test ``async with Database(…) as database`` opens and closes it.

    Args:
        url: with the credentials of the service's own role.
        health: gets a part ``database``.
        name: how the server shows these connections.
        connections: at most; a request waits up to 5 seconds for one.
        statement_seconds: after which a statement is cancelled, so that none holds a request for ever.
    """

    def __init__(
        self, url: str, health: Health, *, name: str, connections: int = 10, statement_seconds: int = 10
    ) -> None:
        self._health = health
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            timeout=5,
            open=False,
            kwargs={
                "connect_timeout": 5,
                "application_name": name,
                "options": f"-c statement_timeout={statement_seconds}s"
                " -c idle_in_transaction_session_timeout=30s",
            },
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection[Any]]:
        """A connection in a transaction: committed at the end of the block, rolled back when it raises."""
        async with self._pool.connection() as connection:
            yield connection

    def run(self, stopping: asyncio.Event) -> asyncio.Future[None]:
        """Open the pool, watch the database, and close the pool when ``stopping`` is set."""
        return asyncio.ensure_future(self._run(stopping))

    async def _run(self, stopping: asyncio.Event) -> None:
        async with self:
            while not stopping.is_set():
                try:
                    async with self._pool.connection(timeout=5) as connection:
                        await connection.execute("SELECT 1")
                    self._health.fine("database")
                except Exception as error:
                    self._health.broken("database", type(error).__name__)
                try:
                    await asyncio.wait_for(stopping.wait(), _CHECK_SECONDS)
                except TimeoutError:
                    continue

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()
