"""Shares the hash slots of aggregates between workers, by leases in the database.

A worker renews its leases between two batches, so a slot that it lets go has nothing in flight. A worker
that stops for longer than a lease and goes on loses nothing and turns nothing round: what it publishes
then has the message ids that the slot's new owner used, and the bus drops the later of two equal ones.
"""

from __future__ import annotations

import time
from typing import Any

from psycopg import AsyncConnection

from kilo.outbox.reader import SLOTS

LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0


class SlotLeases:
    """The slots of the worker ``name``, leased over ``connection``, which is in autocommit mode."""

    def __init__(self, connection: AsyncConnection[Any], name: str) -> None:
        self._connection = connection
        self._name = name
        self._renewed_at = -LEASE_SECONDS
        self.held: frozenset[int] = frozenset()

    @property
    def due(self) -> bool:
        """Whether it is time to renew."""
        return time.monotonic() - self._renewed_at >= RENEW_SECONDS

    @property
    def valid(self) -> bool:
        """Whether the leases still hold."""
        return time.monotonic() - self._renewed_at < LEASE_SECONDS - RENEW_SECONDS

    async def renew(self) -> bool:
        """Renew, let go what is beyond this worker's share, take what is free; whether slots were gained."""
        before, asked_at = self.held, time.monotonic()
        async with self._connection.transaction():
            await self._connection.execute(
                "INSERT INTO outbox_workers VALUES (%s, clock_timestamp() + %s * interval '1 s')"
                " ON CONFLICT (worker) DO UPDATE SET seen_until = excluded.seen_until",
                (self._name, LEASE_SECONDS),
            )
            share = await self._share()
            cursor = await self._connection.execute(
                "UPDATE outbox_slots SET lease_until = clock_timestamp() + %(lease)s * interval '1 s'"
                " WHERE slot IN (SELECT slot FROM outbox_slots WHERE owner = %(name)s ORDER BY slot"
                " LIMIT %(share)s FOR UPDATE) RETURNING slot",
                {"lease": LEASE_SECONDS, "name": self._name, "share": share},
            )
            held = {row[0] for row in await cursor.fetchall()}
            await self._connection.execute(
                "UPDATE outbox_slots SET owner = NULL, lease_until = NULL"
                " WHERE owner = %s AND NOT slot = ANY(%s)",
                (self._name, sorted(held)),
            )
            if len(held) < share:
                cursor = await self._connection.execute(
                    "UPDATE outbox_slots SET owner = %(name)s,"
                    " lease_until = clock_timestamp() + %(lease)s * interval '1 s'"
                    " WHERE slot IN (SELECT slot FROM outbox_slots"
                    " WHERE owner IS NULL OR lease_until < clock_timestamp() ORDER BY slot"
                    " LIMIT %(most)s FOR UPDATE SKIP LOCKED) RETURNING slot",
                    {"lease": LEASE_SECONDS, "name": self._name, "most": share - len(held)},
                )
                held |= {row[0] for row in await cursor.fetchall()}
        self.held = frozenset(held)
        self._renewed_at = asked_at
        return bool(self.held - before)

    async def release(self) -> None:
        """Let all slots go, so that others need not wait for the leases to end."""
        async with self._connection.transaction():
            await self._connection.execute(
                "UPDATE outbox_slots SET owner = NULL, lease_until = NULL WHERE owner = %s", (self._name,)
            )
            await self._connection.execute("DELETE FROM outbox_workers WHERE worker = %s", (self._name,))
        self.held = frozenset()

    async def _share(self) -> int:
        await self._connection.execute("DELETE FROM outbox_workers WHERE seen_until < clock_timestamp()")
        cursor = await self._connection.execute("SELECT worker FROM outbox_workers ORDER BY worker")
        workers = [row[0] for row in await cursor.fetchall()]
        # 64 slots over 3 workers: 22, 21, 21, so that nobody waits for a slot that nobody gives.
        share, rest = divmod(SLOTS, len(workers))
        return share + (workers.index(self._name) < rest)
