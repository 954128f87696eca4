"""Marks rows as dispatched, in the name of a lease: once it is taken over, its old holder marks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from psycopg import AsyncConnection

from kilo.database.lease import Lease

# id and created_at together find the row's partition and its key there.
_MARK = (
    "UPDATE outbox SET dequeued_at = now() WHERE id = ANY(%s::bigint[])"
    " AND created_at BETWEEN %s::timestamptz AND %s::timestamptz AND dequeued_at IS NULL"
    " AND EXISTS (SELECT FROM leases WHERE name = %s AND epoch = %s FOR SHARE)"
)

CREATED_AT = "CASE WHEN created_at BETWEEN timestamptz '2000-01-01Z' AND '2100-01-01Z' THEN created_at END"
"""The column as SQL reads it for a program: null where it is nothing that one can hold, such as infinity."""

SHOWN_CREATED_AT = "greatest(least(created_at, timestamptz '2100-01-01Z'), '2000-01-01Z')"
"""The same for a message's header, which always has a time."""


class DispatchedRow(Protocol):
    """What is known of a row: its id, and when it was created, by :data:`CREATED_AT`."""

    @property
    def id(self) -> int:
        """The row's."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """By :data:`CREATED_AT`."""
        ...


async def mark_dispatched(
    connection: AsyncConnection[Any], lease: Lease, rows: Sequence[DispatchedRow]
) -> int:
    """Mark ``rows`` in one statement; returns how many were not marked already.

    Raises:
        LeaseLost: ``lease`` was taken over, and nothing is marked.
    """
    times = [row.created_at for row in rows if row.created_at is not None]
    bounds = (min(times), max(times)) if len(times) == len(rows) else ("-infinity", "infinity")
    # As text of our own: the driver looks at every element of a list.
    ids = "{" + ",".join([str(row.id) for row in rows]) + "}"
    cursor = await connection.execute(_MARK, (ids, *bounds, lease.name, lease.epoch), prepare=True)
    if not cursor.rowcount:
        await lease.renew(connection)
    return cursor.rowcount
