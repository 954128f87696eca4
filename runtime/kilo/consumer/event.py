"""An event as a handler gets it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
    def ordering_key(self) -> tuple[str, str, str]:
        """What order is kept within."""
        return self.tenant, self.aggregate, self.aggregate_id

    @property
    def occurrence(self) -> Occurrence:
        """Which event it is: the same at every delivery, and another when its key is used again later."""
        return self.tenant, self.fingerprint, self.created_at


Occurrence = tuple[str, str, datetime]
"""Tenant, fingerprint, time of creation."""

# What the outbox accepts (outbox_check). Whatever else is on the bus was put there by somebody else.
_ACCEPTED = {
    "fingerprint": re.compile(r"[!-~]{1,255}"),
    "tenant": re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?"),
    "aggregate-id": re.compile(r"[!-~]{1,200}"),
    "kind": re.compile(r"[a-z][a-z0-9_.-]{0,126}"),
    "publisher": re.compile(r"worker|cdc"),
}
_AGGREGATE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_FIRST_YEAR, _LAST_YEAR = 2000, 2199


def envelope(received: Received) -> Envelope:
    """Read the headers of ``received``.

    Raises:
        Unreadable: one that every event has is missing, or is not what the outbox would have let in.
    """
    headers = received.headers
    return Envelope(
        fingerprint=_accepted(headers, "fingerprint"),
        tenant=_accepted(headers, "tenant"),
        aggregate=_aggregate(received.subject),
        aggregate_id=_accepted(headers, "aggregate-id"),
        kind=_accepted(headers, "kind"),
        created_at=_created_at(headers),
        publisher=_accepted(headers, "publisher", "worker"),
        position=received.position,
        headers=headers,
        raw=received.payload,
    )


def _accepted(headers: Mapping[str, str], name: str, default: str | None = None) -> str:
    value = headers.get(name, default)
    if value is None:
        msg = f"header {name} is missing"
        raise Unreadable(msg)
    if not _ACCEPTED[name].fullmatch(value):
        msg = f"header {name} is not what the outbox accepts: it matches {_ACCEPTED[name].pattern}"
        raise Unreadable(msg)
    return value


def _aggregate(subject: str) -> str:
    aggregate = subject.rpartition(".")[2]
    if not _AGGREGATE.fullmatch(aggregate):
        msg = f"the subject's last token is no aggregate: one matches {_AGGREGATE.pattern}"
        raise Unreadable(msg)
    return aggregate


def _created_at(headers: Mapping[str, str]) -> datetime:
    try:
        found = datetime.fromisoformat(headers["created-at"])
        if found.tzinfo is not None and _FIRST_YEAR <= found.year <= _LAST_YEAR:
            return found.astimezone(UTC)
    except KeyError:
        msg = "header created-at is missing"
        raise Unreadable(msg) from None
    except (ValueError, OverflowError):
        pass
    msg = "header created-at is no time with a zone between 2000 and 2200, as in 2026-03-01T12:00:00.000000Z"
    raise Unreadable(msg)


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
