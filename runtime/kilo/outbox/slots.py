"""Shares the hash slots of ordering keys between workers, by one lease a worker.

A slot belongs to the epoch of its worker's lease and is free when no lease has that epoch. A worker renews
between two batches, so a slot that it lets go has nothing in flight. One that stops for longer than its lease
loses it, and its slots with it; what it had published already has the message ids that the slots' new owner
uses, and the bus drops the later of two equal ones.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from kilo.database.lease import LEASE_SECONDS, Lease, LeaseLost
from kilo.outbox.reader import SLOTS

_PREFIX = "outbox/worker/"

_END_EXPIRED = (
    "DELETE FROM leases WHERE name IN (SELECT name FROM leases"
    " WHERE starts_with(name, %s) AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED)"
)
_WORKERS = "SELECT epoch FROM leases WHERE starts_with(name, %s) ORDER BY epoch"
_RELEASE = (
    "UPDATE outbox_slots SET owner = NULL, epoch = NULL WHERE slot IN"
    " (SELECT slot FROM outbox_slots WHERE epoch = %s ORDER BY slot OFFSET %s FOR UPDATE SKIP LOCKED)"
)
_CLAIM = (
    "UPDATE outbox_slots SET owner = %s, epoch = %s WHERE slot IN"
    " (SELECT slot FROM outbox_slots s WHERE NOT EXISTS (SELECT FROM leases l WHERE l.epoch = s.epoch)"
    " ORDER BY slot LIMIT %s FOR UPDATE SKIP LOCKED)"
)
_HELD = "SELECT slot FROM outbox_slots WHERE epoch = %s"


class SlotLeases:
    """The slots of the worker ``name``, claimed over ``connection``, which is in autocommit mode."""

    def __init__(self, connection: AsyncConnection[Any], name: str, seconds: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._name = name
        self.lease = Lease(_PREFIX + name, name, seconds)
        self.held: frozenset[int] = frozenset()

    @property
    def due(self) -> bool:
        """Whether it is time to renew."""
        return self.lease.due

    async def renew(self) -> bool:
        """Renew, let go what is beyond this worker's share, take what is free; whether slots were gained.

        Every statement is a transaction of its own and waits for nobody, so that a worker which is stopped
        here holds nobody up.
        """
        before = self.held
        try:
            await self.lease.renew(self._connection)
        except LeaseLost:
            before = self.held = frozenset()
            if not await self.lease.acquire(self._connection):
                return False
        await self._connection.execute(_END_EXPIRED, (_PREFIX,))
        share = await self._share()
        await self._connection.execute(_RELEASE, (self.lease.epoch, share))
        held = await self._slots()
        if len(held) < share:
            await self._connection.execute(_CLAIM, (self._name, self.lease.epoch, share - len(held)))
            held = await self._slots()
        self.held = held
        return bool(held - before)

    async def release(self) -> None:
        """Let all slots go, so that others need not wait for the lease to end."""
        await self._connection.execute(_RELEASE, (self.lease.epoch, 0))
        await self.lease.release(self._connection)
        self.held = frozenset()

    async def _slots(self) -> frozenset[int]:
        cursor = await self._connection.execute(_HELD, (self.lease.epoch,))
        return frozenset(row[0] for row in await cursor.fetchall())

    async def _share(self) -> int:
        cursor = await self._connection.execute(_WORKERS, (_PREFIX,))
        workers = [row[0] for row in await cursor.fetchall()]
        if self.lease.epoch not in workers:
            return 0
        # 64 slots over 3 workers: 22, 21, 21, so that nobody waits for a slot that nobody gives.
        share, rest = divmod(SLOTS, len(workers))
        return share + (workers.index(self.lease.epoch) < rest)
