"""An event as a handler gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kilo.bus import Received
from kilo.outbox import strict_json


class Unreadable(ValueError):
    """The message is not an event, or its payload is not JSON. Trying again can't help."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        fingerprint: its idempotency key, the same at every delivery.
        tenant: whose it is.
        aggregate: the kind of thing it happened to.
        aggregate_id: which thing.
        kind: what happened.
        payload: the JSON value; whole numbers are ``int``, others ``Decimal``, sensitive fields in plain.
        created_at: when it was written into the outbox.
        publisher: ``worker`` or ``cdc``.
        traceparent: of the trace it belongs to (W3C Trace Context).
        replay_of: the message id of the delivery that this one repeats, when it is a replay.
        headers: all headers as they came.
    """

    fingerprint: str
    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: Any
    created_at: datetime
    publisher: str
    traceparent: str | None
    replay_of: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a message's headers say; the payload is read later, since it may be unreadable."""

    fingerprint: str
    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    created_at: datetime
    position: int
    publisher: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def lane(self) -> tuple[str, str]:
        """What order is kept within."""
        return self.aggregate, self.aggregate_id


def envelope(received: Received) -> Envelope:
    """Read the headers of ``received``.

    Raises:
        Unreadable: one that every event has is missing or not what it should be.
    """
    headers = received.headers
    try:
        return Envelope(
            fingerprint=headers["fingerprint"],
            tenant=headers["tenant"],
            aggregate=received.subject.rpartition(".")[2],
            aggregate_id=headers["aggregate-id"],
            kind=headers["kind"],
            created_at=datetime.fromisoformat(headers["created-at"]),
            publisher=headers.get("publisher", "worker"),
            position=received.position,
            headers=headers,
            raw=received.payload,
        )
    except KeyError as error:
        msg = f"header {error} is missing"
        raise Unreadable(msg) from error
    except ValueError as error:
        msg = f"header created-at: {error}"
        raise Unreadable(msg) from error


def payload_of(one: Envelope) -> Any:
    """The payload as a JSON value.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        return strict_json.parse(one.raw)
    except strict_json.NotStrict as error:
        raise Unreadable(str(error)) from error


def event(one: Envelope, payload: Any) -> Event:
    """The event for a handler."""
    return Event(
        fingerprint=one.fingerprint,
        tenant=one.tenant,
        aggregate=one.aggregate,
        aggregate_id=one.aggregate_id,
        kind=one.kind,
        payload=payload,
        created_at=one.created_at,
        publisher=one.publisher,
        traceparent=one.headers.get("traceparent"),
        replay_of=one.headers.get("replay-of"),
        headers=one.headers,
    )
