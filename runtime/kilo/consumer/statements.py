"""What handlers that only write give to the consumer: statements, executed together at the end of a batch."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import Params, QueryNoTemplate


class Statements:
    """Statements in the order in which they are to be executed; nobody waits for one of them."""

    def __init__(self) -> None:
        self._runs: list[tuple[QueryNoTemplate, list[Params]]] = []

    def add(self, query: QueryNoTemplate, params: Params) -> None:
        """Execute ``query`` with ``params`` when the batch ends, in its transaction."""
        if self._runs and self._runs[-1][0] == query:
            self._runs[-1][1].append(params)
        else:
            self._runs.append((query, [params]))

    async def execute(self, connection: AsyncConnection[Any]) -> None:
        """Execute all of them, pipelined; equal queries that follow each other are prepared once.

        Raises:
            psycopg.Error: the database refuses one of them; which one is not known.
        """
        async with connection.pipeline(), connection.cursor() as cursor:
            for query, rows in self._runs:
                if len(rows) == 1:
                    await cursor.execute(query, rows[0], prepare=True)
                else:
                    await cursor.executemany(query, rows)
