"""An event as a handler gets it, and how it is read from a message.

What comes from the bus is hostile until it is read here: a header may hold anything, and what the outbox's
trigger refuses (``outbox_check`` in the migrations) is refused once more.

A message without the platform's headers that is a CloudEvent, from another system, is read as one: its type
is the kind, its subject the aggregate id, the extension ``tenant`` says whose it is, and source and id
together are the fingerprint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilo.bus import Received
from kilo.bus.cloudevents import SOURCE, attributes_of
from kilo.environment import EVENT_SCHEMAS_VARIABLE
from kilo.outbox import strict_json

if TYPE_CHECKING:
    from kilo.schemas import EventSchemas


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

    @property
    def cloudevent(self) -> dict[str, str]:
        """The CloudEvents attributes by name, such as ``id``, ``source`` and ``type``."""
        return attributes_of(self.headers)


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
        """What order is kept within: tenant, aggregate, aggregate id."""
        return self.tenant, self.aggregate, self.aggregate_id

    @property
    def occurrence(self) -> tuple[str, str, datetime]:
        """What tells it from every other event: tenant, fingerprint, creation time.

        A fingerprint alone does not: it may be used again after its window.
        """
        return self.tenant, self.fingerprint, self.created_at


_PATTERNS = {
    "fingerprint": re.compile(r"[!-~]{1,255}"),
    "tenant": re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"),
    "aggregate-id": re.compile(r"[!-~]{1,200}"),
    "kind": re.compile(r"[a-z][a-z0-9_.-]{0,126}"),
}
_AGGREGATE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)
"""Not soon after now: what a database dated whose clock was ahead is an event all the same."""
_PUBLISHERS = frozenset({"worker", "cdc"})


def envelope(received: Received) -> Envelope:
    """Read the headers of ``received``.

    Raises:
        Unreadable: one that every event has is missing or not what it should be; its value is not quoted.
    """
    headers = received.headers
    if "fingerprint" not in headers:
        headers = {**_of_cloudevent(headers, received.subject.rpartition(".")[2]), **headers}
    for name, pattern in _PATTERNS.items():
        value = headers.get(name)
        if value is None:
            msg = f"header {name} is missing"
            raise Unreadable(msg)
        if not pattern.fullmatch(value):
            msg = f"header {name} is not {pattern.pattern}"
            raise Unreadable(msg)
    aggregate = received.subject.rpartition(".")[2]
    if not _AGGREGATE.fullmatch(aggregate):
        msg = f"the subject's last token is not {_AGGREGATE.pattern}"
        raise Unreadable(msg)
    publisher = headers.get("publisher", "worker")
    if publisher not in _PUBLISHERS:
        msg = "header publisher is neither worker nor cdc"
        raise Unreadable(msg)
    return Envelope(
        fingerprint=headers["fingerprint"],
        tenant=headers["tenant"],
        aggregate=aggregate,
        aggregate_id=headers["aggregate-id"],
        kind=headers["kind"],
        created_at=_creation_time(headers.get("created-at")),
        publisher=publisher,
        position=received.position,
        headers=headers,
        raw=received.payload,
    )


def _of_cloudevent(headers: Mapping[str, str], aggregate: str) -> dict[str, str]:
    """What a CloudEvent says in the platform's own headers; what it says not is left out."""
    found = attributes_of(headers)
    given = {
        "tenant": found.get("tenant"),
        "kind": found.get("type"),
        # With or without the aggregate before it, as ingest's batches have it.
        "aggregate-id": found.get("subject", "").removeprefix(f"{aggregate}/") or None,
        "created-at": found.get("time"),
        "traceparent": found.get("traceparent"),
    }
    identity, source = found.get("id"), found.get("source")
    if identity and source:
        own = (
            source.startswith(f"{SOURCE}/")
            and found.get("tenant")
            and identity.startswith(f"{found['tenant']}/")
        )
        given["fingerprint"] = identity.partition("/")[2] if own else f"{source}#{identity}"
    return {name: value for name, value in given.items() if value is not None}


def stand_in(received: Received, stream: str) -> Envelope:
    """An envelope for a message that is no event, so that it can be kept and looked at.

    It is the same whenever the message is read. Of the headers only what is well-formed is used.
    """

    def given(name: str, otherwise: str) -> str:
        value = received.headers.get(name, "")
        return value if _PATTERNS[name].fullmatch(value) else otherwise

    aggregate = received.subject.rpartition(".")[2]
    name = f"unreadable/{stream}/{received.position}"
    return Envelope(
        fingerprint=name,
        tenant=given("tenant", "unknown"),
        aggregate=aggregate if _AGGREGATE.fullmatch(aggregate) else "unreadable",
        aggregate_id=given("aggregate-id", name),
        kind=given("kind", "unreadable"),
        created_at=_stored_time(received.stored_at),
        publisher="unknown",
        position=received.position,
        headers=received.headers,
        raw=received.payload,
    )


def _creation_time(text: str | None) -> datetime:
    if text is None:
        msg = "header created-at is missing"
        raise Unreadable(msg)
    try:
        found = datetime.fromisoformat(text)
        in_utc = found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError) as error:
        msg = "header created-at is not a time (RFC 3339)"
        raise Unreadable(msg) from error
    if in_utc is None:
        msg = "header created-at has no time zone"
        raise Unreadable(msg)
    if not _EARLIEST <= in_utc < _LATEST:
        msg = "header created-at is not between the years 2000 and 3000"
        raise Unreadable(msg)
    return in_utc


def _stored_time(seconds: float) -> datetime:
    try:
        return max(datetime.fromtimestamp(seconds, UTC), _EARLIEST)
    except (ValueError, OverflowError, OSError):
        return _EARLIEST


def payload_of(one: Envelope) -> Any:
    """The payload as a JSON value.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        return strict_json.parse(one.raw)
    except strict_json.NotStrict as error:
        raise Unreadable(str(error)) from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        msg = f"the payload can't be read as JSON ({type(error).__name__})"
        raise Unreadable(msg) from error


def named_schemas() -> EventSchemas | None:
    """The schemas of the folder that ``KILO_EVENT_SCHEMAS`` names; none where it names none.

    Raises:
        BadInput: the folder or one of its files is not what it should be.
    """
    folder = os.environ.get(EVENT_SCHEMAS_VARIABLE)
    if not folder:
        return None
    from kilo.schemas import load_folder  # noqa: PLC0415  only whoever asks for it needs the library

    return load_folder(Path(folder))


def check_schema(kind: str, payload: Any) -> None:
    """Hold a payload to the schema of its kind, where there is one.

    Raises:
        Unreadable: it is not what the schema says.
    """
    schemas = named_schemas()
    problem = None if schemas is None else schemas.problem_of_read(kind, payload)
    if problem is not None:
        raise Unreadable(problem)


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
