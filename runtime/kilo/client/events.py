"""What is sent, what is acknowledged, and what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kilo.errors import BadInput, Unreachable
from kilo.outbox import strict_json
from kilo.outbox.enqueue import new_fingerprint

_KEY = re.compile(r"[!-~]{1,200}")
BATCH_EVENTS, ATOMIC_EVENTS, BATCH_BYTES = 1_000, 250, 1_000_000
"""What one request may hold, and one that is stored whole or not at all (the server takes 1 MiB)."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to send.

    Attributes:
        aggregate: the kind of thing that it happened to.
        aggregate_id: which thing. Events of one aggregate and id are delivered in order.
        kind: what happened, such as ``order.paid``.
        payload: a JSON object.
        key: the idempotency key; without one the event gets its own, so that it is stored once for each
            ``NewEvent`` that is made. Give what names the occurrence where there is such a thing.
        traceparent: of the trace that it belongs to (W3C Trace Context); by default the current span's.
    """

    aggregate: str
    aggregate_id: str
    kind: str
    payload: Mapping[str, Any]
    key: str = field(default_factory=new_fingerprint)
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an event.

    Attributes:
        key: its idempotency key.
        status: ``accepted``, ``duplicate`` (it was there with the same content) or ``failed``.
        fingerprint: as consumers see it, of one that is stored.
        problem: problem details (RFC 9457) of one that failed.
    """

    key: str
    status: Literal["accepted", "duplicate", "failed"]
    fingerprint: str | None = None
    problem: Mapping[str, Any] | None = None


class EventRefused(BadInput):
    """The platform refuses a request; sending it again will not help.

    Attributes:
        problem: problem details (RFC 9457): ``status``, ``detail`` and ``errors`` with each place.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{problem.get('status')}: {problem.get('detail') or problem.get('title')}")
        self.problem = problem


class EventsUnavailable(Unreachable):
    """The platform did not acknowledge a request in the time there was; it may have been stored.

    Sending the same events with the same keys again is safe.
    """


def body_of(event: NewEvent) -> bytes:
    """The body of a request with one event.

    Raises:
        BadInput: the payload is no JSON that can be kept.
    """
    return (_named(event, {})[:-1] + f', "payload": {_payload(event)}}}').encode()


def line_of(event: NewEvent) -> bytes:
    """A batch's line with one event.

    Raises:
        BadInput: as :func:`body_of`.
    """
    own: dict[str, str] = {"key": event.key}
    if event.traceparent:
        own["traceparent"] = event.traceparent
    return (_named(event, own)[:-1] + f', "payload": {_payload(event)}}}\n').encode()


def batches(lines: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
    """Split lines into what requests may hold."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and (len(part) == BATCH_EVENTS or size + len(line) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _named(event: NewEvent, own: dict[str, str]) -> str:
    fields = {"aggregate": event.aggregate, "aggregate_id": event.aggregate_id, "kind": event.kind}
    if not _KEY.fullmatch(event.key):
        msg = "key: 1 to 200 printable ASCII characters without spaces"
        raise BadInput(msg)
    return json.dumps({**own, **fields})


def _payload(event: NewEvent) -> str:
    if not isinstance(event.payload, dict):
        msg = "payload: must be a JSON object (a dict)"
        raise BadInput(msg)
    try:
        strict_json.check(event.payload)
    except strict_json.NotStrict as error:
        msg = f"payload{error.pointer}: {error.problem}"
    else:
        return strict_json.write(event.payload)
    # Outside of the handler: an error in a log must not hold the payload.
    raise BadInput(msg)
