"""Leases in the database: the one way in which a process holds what only one may have.

A lease ends by the server's clock. Whoever takes it over gets a new epoch, and the old holder's writes are
refused, since each is made in a transaction that names the epoch it relies on (:meth:`Lease.fence`). The
lease's row is locked until that transaction ends, so a new holder begins only after the last write of the
old one. Nobody waits for that lock: taking over fails while it is held and is tried again. A frozen process
keeps it no longer than the server lets a transaction be idle, so connections come from
:func:`kilo.database.session.connect`.

Left out: advisory locks, which a frozen process or a lost node keeps until TCP gives up, after hours; and
clocks of clients, which are only used to renew in time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

LEASE_SECONDS = 10.0
"""How long a lease holds that is not renewed."""
RENEW_SECONDS = 2.0
"""How long after one renewal the next is due."""

_ACQUIRE = """
WITH ended AS (
    SELECT name FROM leases WHERE name = %(name)s AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE leases SET holder = %(holder)s, epoch = nextval('lease_epoch_seq'),
        expires_at = clock_timestamp() + %(seconds)s * interval '1 s'
    FROM ended WHERE leases.name = ended.name RETURNING leases.epoch
), made AS (
    INSERT INTO leases (name, holder, epoch, expires_at)
    SELECT %(name)s, %(holder)s, nextval('lease_epoch_seq'), clock_timestamp() + %(seconds)s * interval '1 s'
    WHERE NOT EXISTS (SELECT FROM leases WHERE name = %(name)s)
    ON CONFLICT (name) DO NOTHING RETURNING epoch
)
SELECT epoch FROM taken UNION ALL SELECT epoch FROM made
"""
_RENEW = (
    "UPDATE leases SET expires_at = clock_timestamp() + %s * interval '1 s'"
    " WHERE name = %s AND epoch = %s RETURNING epoch"
)
_CHECK = "SELECT FROM leases WHERE name = %s AND epoch = %s FOR SHARE"
_RELEASE = "DELETE FROM leases WHERE name = %s AND epoch = %s"


class LeaseLost(Exception):
    """Another process has taken the lease over; nothing may be written in its name any more."""


class Lease:
    """A lease that this process holds, held, or would like to hold.

    Args:
        name: what it is about; ``outbox/…`` for the worker's role, ``consumer/…`` for the consumer's.
        holder: who asks for it, for people to see.
        seconds: how long it holds unless it is renewed.
    """

    def __init__(self, name: str, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self.name = name
        self.holder = holder
        self.seconds = seconds
        self.epoch: int | None = None
        """Which time of being held this is, different from every other; none while it is not held."""
        self._renewed_at = 0.0

    @property
    def held(self) -> bool:
        """Whether it is held, as far as this process knows without asking; only :meth:`fence` is proof."""
        return self.epoch is not None and time.monotonic() - self._renewed_at < self.seconds

    @property
    def due(self) -> bool:
        """Whether it is time to renew."""
        return time.monotonic() - self._renewed_at >= self.seconds * RENEW_SECONDS / LEASE_SECONDS

    async def acquire(self, connection: AsyncConnection[Any]) -> bool:
        """Take the lease if nobody holds it; never waits for another process.

        Args:
            connection: in autocommit mode and outside a transaction, so that others see it at once.
        """
        asked_at = time.monotonic()
        values = {"name": self.name, "holder": self.holder, "seconds": self.seconds}
        row: Any = await (await connection.execute(_ACQUIRE, values)).fetchone()
        self.epoch = row[0] if row else None
        self._renewed_at = asked_at
        return self.epoch is not None

    async def renew(self, connection: AsyncConnection[Any]) -> None:
        """Hold it for longer, from now on.

        Within a transaction this fences it as :meth:`fence` does.

        Raises:
            LeaseLost: it was taken over.
        """
        asked_at = time.monotonic()
        cursor = await connection.execute(_RENEW, (self.seconds, self.name, self.epoch), prepare=True)
        self.confirm(found=bool(cursor.rowcount))
        self._renewed_at = asked_at

    async def fence(self, connection: AsyncConnection[Any]) -> None:
        """Let the transaction that ``connection`` is in commit only while the lease is this process's.

        Until it ends nobody takes the lease over. Renews when that is due, so that whoever writes often
        needs no other renewal.

        Raises:
            LeaseLost: it was taken over; roll back.
        """
        if self.due:
            await self.renew(connection)
            return
        cursor = await connection.execute(_CHECK, (self.name, self.epoch), prepare=True)
        self.confirm(found=bool(cursor.rowcount))

    def fence_here(self, connection: Connection[TupleRow]) -> None:
        """As :meth:`fence`, in a transaction of a connection that does not wait for others; never renews.

        Raises:
            LeaseLost: it was taken over; roll back.
        """
        cursor = connection.execute(_CHECK, (self.name, self.epoch))
        self.confirm(found=cursor.fetchone() is not None)

    @asynccontextmanager
    async def fenced(self, connection: AsyncConnection[Any]) -> AsyncGenerator[None]:
        """A transaction on ``connection`` that begins with :meth:`fence`.

        Raises:
            LeaseLost: it was taken over; nothing was written.
        """
        async with connection.transaction():
            await self.fence(connection)
            yield

    async def release(self, connection: AsyncConnection[Any]) -> None:
        """Give it up, so that others need not wait for its end; nothing when it is not held."""
        if self.epoch is not None:
            await connection.execute(_RELEASE, (self.name, self.epoch))
            self.epoch = None

    def confirm(self, *, found: bool) -> None:
        """Take note of what the caller ``found``, by a statement of its own that looks as a fence does.

        Raises:
            LeaseLost: it was taken over; roll back.
        """
        if not found:
            self.epoch = None
            msg = f"the lease {self.name} of {self.holder} was taken over"
            raise LeaseLost(msg)
