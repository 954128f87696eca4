"""Rows of change capture that will not come any more.

One that does not arrive is lost only when its slot has confirmed more WAL than there was when the row was
seen, or when the slot is gone. Until then the connector is merely slow.
"""

from __future__ import annotations

import time
from typing import Any, Final

from psycopg import AsyncConnection

_PAUSE_SECONDS: Final = 5.0
"""How long the slot is given to confirm what was seen."""


class NeverCaptured:
    """What change capture should have published and did not.

    Args:
        connection: of the worker's role, in autocommit mode.
        slot: the replication slot that the connector reads.
        patience_seconds: so old is a row before it is suspected.
    """

    def __init__(self, connection: AsyncConnection[Any], slot: str, patience_seconds: float) -> None:
        self._connection = connection
        self._slot = slot
        self._patience = patience_seconds
        self._suspects: list[tuple[int, str]] = []
        self._looked_at = 0.0

    async def look(self) -> list[int]:
        """The ids of rows that are lost by now, each once; every few seconds, between them none."""
        if time.monotonic() - self._looked_at < _PAUSE_SECONDS:
            return []
        cursor = await self._connection.execute(
            "SELECT confirmed_flush_lsn::text, wal_status FROM pg_replication_slots WHERE slot_name = %s"
            " AND database = current_database()",
            (self._slot,),
        )
        slot = await cursor.fetchone()
        gone = slot is None or slot[1] == "lost"
        lost: list[int] = []
        if self._suspects and (gone or await self._confirmed(slot, self._suspects[0][1])):
            cursor = await self._connection.execute(
                "SELECT id FROM outbox WHERE id = ANY(%s) AND dequeued_at IS NULL",
                ([row_id for row_id, _ in self._suspects],),
            )
            lost = [row[0] for row in await cursor.fetchall()]
            self._suspects = []
        if not self._suspects:
            cursor = await self._connection.execute(
                "SELECT id, pg_current_wal_lsn()::text FROM outbox WHERE dequeued_at IS NULL"
                " AND publisher = 'cdc' AND created_at < now() - %s * interval '1 s' ORDER BY id LIMIT 10000",
                (self._patience,),
            )
            self._suspects = [(row[0], row[1]) for row in await cursor.fetchall()]
        self._looked_at = time.monotonic()
        return lost

    async def _confirmed(self, slot: Any, position: str) -> bool:
        cursor = await self._connection.execute("SELECT %s::pg_lsn > %s::pg_lsn", (slot[0], position))
        row = await cursor.fetchone()
        return bool(row and row[0])
