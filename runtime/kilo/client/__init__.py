"""Sends events to the platform over HTTP, one or many, from services that have no outbox of their own.

::

    with EventClient("https://events.example.com", "acme") as client:
        client.send(NewEvent("order", "42", "order.paid", {"total": 12}, key="order-42-paid"))
        for sent in client.send_many(events):
            ...

:class:`AsyncEventClient` is the same for asyncio. What ``send`` returns is committed. Every event has an
idempotency key, so what was not answered is sent again without a second effect. Left out on purpose: sending
in the background, since an event that only this process knows of is lost with it. Whoever has a database
writes an event in its transaction instead (:mod:`kilo.outbox`). Requests that are no events honour the
gateway's hints by :class:`RetryTransport` and :class:`AsyncRetryTransport`.
"""

from kilo.extras import requires

with requires("client"):
    from kilo.client.clients import AsyncEventClient, EventClient
    from kilo.client.delivery import RetryPolicy
    from kilo.client.events import EventRefused, EventsUnavailable, NewEvent, Sent
    from kilo.client.transport import AsyncRetryTransport, RetryTransport

__all__ = [
    "AsyncEventClient",
    "AsyncRetryTransport",
    "EventClient",
    "EventRefused",
    "EventsUnavailable",
    "NewEvent",
    "RetryPolicy",
    "RetryTransport",
    "Sent",
]
