"""Aggregates whose next event the bus does not take: each waits by itself, and nobody waits for it.

Only the first row of such an aggregate is remembered. What comes behind it is let go when it is read, and
read again once the first went through; so memory does not grow with what waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from kilo.outbox.reader import Row

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 60.0


@dataclass(slots=True)
class _Stuck:
    row_id: int
    attempts: int
    due_at: float
    retrying: bool = False
    through: bool = False
    """The first row went through; this is the next, which has to be read before any later one goes."""


class StuckAggregates:
    """What is stuck, in memory and for people to see in the table ``outbox_stuck``."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._held: dict[tuple[str, str], _Stuck] = {}
        self._behind: dict[tuple[str, str], int] = {}
        self._freed: set[tuple[str, str]] = set()
        self._again: list[int] = []

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, row: Row) -> bool:
        """Whether ``row`` has to wait."""
        stuck = self._held.get((row.subject, row.aggregate_id))
        if stuck is None:
            return False
        key = (row.subject, row.aggregate_id)
        if stuck.retrying and row.id == stuck.row_id:
            if stuck.through:
                self._free(key)
            return False
        if row.id > stuck.row_id:
            self._behind[key] = min(row.id, self._behind.get(key, row.id))
        return True

    def due(self) -> list[int]:
        """Rows that are to be tried again, or were waiting and are free; each is returned once."""
        now = time.monotonic()
        for stuck in self._held.values():
            if not stuck.retrying and stuck.due_at <= now:
                stuck.retrying = True
                self._again.append(stuck.row_id)
        again, self._again = self._again, []
        return again

    def released(self, rows: Iterable[Row]) -> None:
        """These rows went through."""
        if not self._held:
            return
        for row in rows:
            key = (row.subject, row.aggregate_id)
            stuck = self._held.get(key)
            if stuck is None or row.id != stuck.row_id:
                continue
            behind = self._behind.pop(key, None)
            if behind is None:
                self._free(key)
            else:
                self._held[key] = _Stuck(behind, 0, 0.0, retrying=True, through=True)
                self._again.append(behind)

    async def hold(self, failed: Sequence[tuple[Row, str]]) -> None:
        """Hold the aggregates of these rows, which the bus did not take."""
        now = time.monotonic()
        for row, error in failed:
            key = (row.subject, row.aggregate_id)
            known = self._held.get(key)
            if known is not None and known.row_id < row.id:
                self._behind[key] = min(row.id, self._behind.get(key, row.id))
                continue
            attempts = known.attempts + 1 if known else 1
            pause = min(_FIRST_SECONDS * 2 ** (attempts - 1), _LONGEST_SECONDS)
            due_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter
            self._held[key] = _Stuck(row.id, attempts, due_at)
            await self._connection.execute(
                "INSERT INTO outbox_stuck (aggregate, aggregate_id, outbox_id, attempts, error)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (aggregate, aggregate_id) DO UPDATE"
                " SET outbox_id = excluded.outbox_id, attempts = excluded.attempts, error = excluded.error",
                (row.subject.partition(".")[2], row.aggregate_id, row.id, attempts, error[:500]),
            )

    async def tidy(self) -> None:
        """Bring the table to what is known here, and take out what went through elsewhere."""
        for subject, aggregate_id in self._freed:
            await self._connection.execute(
                "DELETE FROM outbox_stuck WHERE aggregate = %s AND aggregate_id = %s",
                (subject.partition(".")[2], aggregate_id),
            )
        self._freed.clear()
        await self._forget_gone()
        await self._connection.execute(
            "DELETE FROM outbox_stuck s WHERE EXISTS (SELECT FROM outbox o"
            " WHERE o.id = s.outbox_id AND o.dequeued_at IS NOT NULL)"
        )

    async def _forget_gone(self) -> None:
        """Free aggregates whose first row was marked by someone else, or deleted."""
        waited_for = [each.row_id for each in self._held.values() if each.retrying]
        if not waited_for:
            return
        cursor = await self._connection.execute(
            "SELECT id FROM outbox WHERE id = ANY(%s) AND dequeued_at IS NULL", (waited_for,)
        )
        there = {row[0] for row in await cursor.fetchall()}
        for key, stuck in list(self._held.items()):
            if stuck.retrying and stuck.row_id not in there:
                self._again.append(self._behind.get(key, stuck.row_id))
                self._free(key)

    def _free(self, key: tuple[str, str]) -> None:
        del self._held[key]
        self._behind.pop(key, None)
        self._freed.add(key)
