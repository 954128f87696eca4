"""Writes events over a connection of asyncpg's, in the transaction that it is in.

    from kilo.outbox.asyncpg_connection import enqueue

    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE orders SET …")
        await enqueue(connection, Event(tenant, "order", order_id, "order.paid", payload))

The driver is the service's own: it is not imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kilo.errors import BadInput
from kilo.outbox.enqueue import COLUMNS, Enqueued, Event, explained, lock_order, outbox_in, values_of

# What a pool gives takes on a connection's methods at run time, which no type of ours could say.
Connection = Any
"""An ``asyncpg.Connection``, or what a pool gives in its place."""


async def enqueue(connection: Connection, event: Event, schema: str | None = None) -> Enqueued:
    """As :func:`kilo.outbox.enqueue_async`, for asyncpg.

    Raises:
        FingerprintConflict: its fingerprint was used for another content.
        BadInput: a field is not what the outbox takes, or the connection is in no transaction.
        asyncpg.PostgresError: the database refuses or can't be reached.
    """
    if not connection.is_in_transaction():
        msg = (
            "the connection is in no transaction: the event would be kept when the change that it announces"
            " is not; write both in `async with connection.transaction():`"
        )
        raise BadInput(msg)
    values = values_of(event)
    try:
        row_id = await connection.fetchval(_statement(schema), *values)
    except Exception as error:
        # By its attributes, which the driver makes of the server's fields.
        constraint, said = (getattr(error, name, None) for name in ("constraint_name", "message"))
        problem = explained(constraint or "", said or "")
        if problem is None:
            raise
    else:
        return Enqueued(event.fingerprint, row_id)
    # Outside of the handler: the database's error has a DETAIL with the whole row, payload included.
    raise problem


async def enqueue_many(
    connection: Connection, events: Iterable[Event], schema: str | None = None
) -> list[Enqueued]:
    """Write many events, one after the other; what became of each, in the order given.

    They are written in the one order of all bulk writers, so that two of them can't deadlock.

    Raises:
        As :func:`enqueue`.
    """
    numbered = list(enumerate(events))
    for _, event in numbered:
        values_of(event)  # nothing is written when one of them is wrong
    numbered.sort(key=lambda each: lock_order(each[1]))
    written = {number: await enqueue(connection, event, schema) for number, event in numbered}
    return [written[number] for number in range(len(numbered))]


def _statement(schema: str | None) -> str:
    places = ", ".join(
        f"${number}::jsonb" if column == "payload" else f"${number}"
        for number, column in enumerate(COLUMNS, 1)
    )
    columns = ", ".join(COLUMNS)
    return f"INSERT INTO {outbox_in(schema)} ({columns}) VALUES ({places}) RETURNING id"  # noqa: S608  ours
