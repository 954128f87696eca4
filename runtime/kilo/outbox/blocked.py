"""Ordering keys whose next event the bus does not take: each is blocked by itself, and nobody waits for it.

Only the first row of such a key is remembered. What is held behind it is let go when it is read, and read
again once the first went through; so memory does not grow with what waits.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from kilo.outbox.reader import Row

_log = logging.getLogger(__name__)

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 60.0


@dataclass(slots=True)
class _Block:
    row_id: int
    attempts: int
    due_at: float
    retrying: bool = False
    through: bool = False
    """The first row went through; this is the next, which has to be read before any later one goes."""


class BlockedKeys:
    """What is blocked, in memory and for people to see in the table ``outbox_blocked``."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._blocks: dict[str, _Block] = {}
        self._behind: dict[str, int] = {}
        self._freed: set[str] = set()
        self._retries: list[int] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def holds(self, row: Row) -> bool:
        """Whether ``row`` has to wait."""
        block = self._blocks.get(row.key)
        if block is None:
            return False
        if block.retrying and row.id == block.row_id:
            if block.through:
                self._free(row.key)
            return False
        if row.id > block.row_id:
            self._behind[row.key] = min(row.id, self._behind.get(row.key, row.id))
        return True

    def due_rows(self) -> list[int]:
        """Ids of rows that are to be tried again, or were held and are free; each is returned once."""
        now = time.monotonic()
        for block in self._blocks.values():
            if not block.retrying and block.due_at <= now:
                block.retrying = True
                self._retries.append(block.row_id)
        retries, self._retries = self._retries, []
        return retries

    def release(self, rows: Iterable[Row]) -> None:
        """These rows went through."""
        if not self._blocks:
            return
        for row in rows:
            block = self._blocks.get(row.key)
            if block is None or row.id != block.row_id:
                continue
            behind = self._behind.pop(row.key, None)
            if behind is None:
                self._free(row.key)
            else:
                self._blocks[row.key] = _Block(behind, 0, 0.0, retrying=True, through=True)
                self._retries.append(behind)

    async def block(self, failed: Sequence[tuple[Row, str]]) -> None:
        """Block the keys of these rows, which the bus did not take, each with the bus's reason."""
        now = time.monotonic()
        for row, error in failed:
            known = self._blocks.get(row.key)
            if known is not None and known.row_id < row.id:
                self._behind[row.key] = min(row.id, self._behind.get(row.key, row.id))
                continue
            attempts = known.attempts + 1 if known else 1
            pause = min(_FIRST_SECONDS * 2 ** (attempts - 1), _LONGEST_SECONDS)
            due_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter
            self._blocks[row.key] = _Block(row.id, attempts, due_at)
            _log.warning(
                "the bus does not take row %d of %s (attempt %d, again in %.1f s): %s",
                *(row.id, row.key, attempts, pause, ascii(error[:200])[1:-1]),
            )
            await self._connection.execute(
                "INSERT INTO outbox_blocked (tenant, aggregate, aggregate_id, outbox_id, attempts, error)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (tenant, aggregate, aggregate_id) DO UPDATE"
                " SET outbox_id = excluded.outbox_id, attempts = excluded.attempts, error = excluded.error",
                (*row.key.split("/", 2), row.id, attempts, error[:500]),
            )

    async def update_table(self) -> None:
        """Bring the table to what is known here, and take out what went through elsewhere."""
        for key in self._freed:
            await self._connection.execute(
                "DELETE FROM outbox_blocked WHERE tenant = %s AND aggregate = %s AND aggregate_id = %s",
                key.split("/", 2),
            )
        self._freed.clear()
        await self._free_gone()
        await self._connection.execute(
            "DELETE FROM outbox_blocked b WHERE EXISTS (SELECT FROM outbox o"
            " WHERE o.id = b.outbox_id AND o.dequeued_at IS NOT NULL)"
        )

    async def _free_gone(self) -> None:
        """Free keys whose first row was marked by someone else, or deleted."""
        waited_for = [each.row_id for each in self._blocks.values() if each.retrying]
        if not waited_for:
            return
        cursor = await self._connection.execute(
            "SELECT id FROM outbox WHERE id = ANY(%s) AND dequeued_at IS NULL", (waited_for,)
        )
        there = {row[0] for row in await cursor.fetchall()}
        for key, block in list(self._blocks.items()):
            if block.retrying and block.row_id not in there:
                self._retries.append(self._behind.get(key, block.row_id))
                self._free(key)

    def _free(self, key: str) -> None:
        del self._blocks[key]
        self._behind.pop(key, None)
        self._freed.add(key)
