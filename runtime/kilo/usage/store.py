"""Keeps the sums: each stretch of a file is added once, whoever reads it how often.

How far a file is read and what was read stand in the same transaction. It begins by moving the one from where
this process believes it to be; when it is elsewhere (a commit whose answer was lost, a twin, a frozen process
that wakes), nothing is added and the truth is read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import AsyncConnection

from kilo.usage.files import Chunk
from kilo.usage.sums import Mix, Sums, Totals

_KNOW = "INSERT INTO usage_files (source, file) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_WHERE = "SELECT read_to FROM usage_files WHERE source = %s AND file = %s"
_MOVE = (
    "UPDATE usage_files SET read_to = %s, entries = entries + %s, unreadable = unreadable + %s,"
    " seen_at = now() WHERE source = %s AND file = %s AND read_to = %s"
)
_SHOW = "UPDATE usage_files SET seen_at = now() WHERE source = %s AND file = ANY (%s)"
_DROP = (
    "UPDATE usage_files SET read_to = greatest(read_to, %(size)s), seen_at = now(),"
    " dropped_bytes = dropped_bytes + greatest(%(size)s - read_to, 0)"
    " WHERE source = %(source)s AND file = %(file)s"
)
# In the order of the key, so that two gateways' transactions wait for each other and never in a circle.
_COLUMNS = "tenant, route, method, status, version, shed"
_GIVEN = (
    "unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],"
    f" %s::bigint[], %s::bigint[], %s::bigint[]) AS given (hour, {_COLUMNS}, requests, received, sent)"
)


def _adding(table: str) -> str:
    totals = ", ".join(
        f"{each} = {table}.{each} + excluded.{each}" for each in ("requests", "received", "sent")
    )
    return f" DO UPDATE SET {totals}"


_ADD_HOURS = (
    f"INSERT INTO usage_requests (hour, {_COLUMNS}, requests, received, sent)"  # noqa: S608  names of our own
    f" SELECT * FROM {_GIVEN} ORDER BY 1, 2, 3, 4, 5, 6, 7"
    f" ON CONFLICT (hour, {_COLUMNS}){_adding('usage_requests')}"
)
_ADD_DAYS = (
    f"INSERT INTO usage_request_days (day, {_COLUMNS}, requests, received, sent)"  # noqa: S608  names of our own
    f" SELECT (hour AT TIME ZONE 'UTC')::date, {_COLUMNS}, sum(requests), sum(received), sum(sent)"
    f" FROM {_GIVEN} GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7"
    f" ON CONFLICT (day, {_COLUMNS}){_adding('usage_request_days')}"
)


class Moved(Exception):
    """The file was read elsewhere meanwhile; nothing was added."""


class UsageStore:
    """What is kept of one gateway's files.

    Args:
        connection: in autocommit mode, its role ``kilo_usage``.
        source: which gateway; no two that run at once have one name.
    """

    def __init__(self, connection: AsyncConnection[Any], source: str) -> None:
        self._connection = connection
        self._source = source

    async def read_to(self, file: str) -> int:
        """How far ``file`` is read."""
        await self._connection.execute(_KNOW, (self._source, file))
        row: Any = await (await self._connection.execute(_WHERE, (self._source, file))).fetchone()
        return row[0]

    async def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add what ``chunk`` comes to, all of it or nothing.

        Raises:
            Moved: it was added before, or what is before it was not.
            psycopg.Error: the database refused or went away; whether it is added is not known then.
        """
        move = (chunk.ends, sums.entries, sums.unreadable, self._source, chunk.file, chunk.begins)
        columns = _columns(sums.mixes.items())
        async with self._connection.transaction():
            if not (await self._connection.execute(_MOVE, move)).rowcount:
                raise Moved(chunk.file)
            if sums.mixes:
                await self._connection.execute(_ADD_HOURS.encode(), columns)
                await self._connection.execute(_ADD_DAYS.encode(), columns)

    async def show(self, files: list[str]) -> None:
        """Say that these are still there, so that they are not forgotten."""
        await self._connection.execute(_SHOW, (self._source, files))

    async def drop(self, file: str, size: int) -> None:
        """Say that ``file`` of ``size`` bytes went before it was read to its end."""
        await self._connection.execute(_KNOW, (self._source, file))
        await self._connection.execute(_DROP, {"source": self._source, "file": file, "size": size})


def _columns(rows: Iterable[tuple[Mix, Totals]]) -> list[list[Any]]:
    columns: list[list[Any]] = [[] for _ in range(10)]
    for (hour, *mix), totals in rows:
        values = (f"{hour}:00Z", *mix, totals.requests, totals.received, totals.sent)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return columns
