"""Idempotent consumers: one effect an event, however often it is delivered.

::

    consumer = Consumer("billing")

    @consumer.on("order.created")
    async def bill(event: Event, connection: AsyncConnection) -> None:
        await connection.execute("INSERT INTO bills …", …)

The inbox row, the handler's writes and the position in the stream are one transaction on ``connection``,
so after any crash all of them happened or none. What a handler does elsewhere (an e-mail, a call) is
outside of it and can happen twice. A plain function works too: it gets a :class:`SyncConnection`.

Where the effect is writes alone, a function that only says them is several times as fast::

    @consumer.writes("order.created")
    def count(event: Event, statements: Statements) -> None:
        statements.add("UPDATE totals SET orders = orders + 1 WHERE tenant = %s", (event.tenant,))
"""

from kilo.extras import requires

with requires("consumer"):
    from kilo.consumer.consumer import Connections, Consumer
    from kilo.consumer.event import Event
    from kilo.consumer.policy import Behind, Park, Policy
    from kilo.consumer.statements import Statements
    from kilo.consumer.sync import SyncConnection

__all__ = ["Behind", "Connections", "Consumer", "Event", "Park", "Policy", "Statements", "SyncConnection"]
