"""The transactional outbox: an event is written in the transaction of the change that it announces.

::

    with connection.transaction():
        connection.execute("UPDATE orders SET …")
        outbox.enqueue(connection, Event("acme", "order", "42", "order.paid", {"total": 12}))

The worker publishes what was committed, in order per aggregate. Left out on purpose: publishing from
inside the transaction, and any promise about order between aggregates.
"""

from kilo.outbox.enqueue import (
    Enqueued,
    Event,
    FingerprintConflict,
    content_fingerprint,
    enqueue,
    enqueue_async,
    enqueue_many,
    enqueue_many_async,
)

__all__ = [
    "Enqueued",
    "Event",
    "FingerprintConflict",
    "content_fingerprint",
    "enqueue",
    "enqueue_async",
    "enqueue_many",
    "enqueue_many_async",
]
