"""The port: what every bus can do, in the words of neither NATS nor Kafka."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from kilo.bus import cloudevents
from kilo.errors import Unreachable

MOST_BYTES = 8 * 1024 * 1024
"""What a reader or publisher has under way at most, unless told otherwise: several of the largest messages
(2 MiB), and a small part of the smallest pod's memory (384 MiB)."""

DECLARE_AGAIN = "`pulumi up -s STAGE --replace '**Job::bus-streams'`"
"""What makes missing streams with the values of the stage's file."""


class BusError(Unreachable):
    """The bus does not answer, or ended the connection; connect again."""


class Message(NamedTuple):
    """A message to publish."""

    subject: str
    """Two tokens: what kind of traffic, and the aggregate."""
    key: str
    """The aggregate id: messages of one subject and key keep their order."""
    headers: bytes
    """Lines ``Name: value`` ended by CRLF, as :func:`encode_headers` makes them. One is ``Nats-Msg-Id``."""
    payload: bytes


class Receipt(NamedTuple):
    """What became of a published message."""

    position: int | None
    """Where it stands in the stream, when it is stored."""
    duplicate: bool = False
    """It was there already: the bus knew its message id."""
    error: str | None = None
    """Why it is not known to be stored. It may be: publish it again with the same message id."""


class Received(NamedTuple):
    """A message as it was read."""

    position: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    stored_at: float
    """When the bus stored it, in seconds since the epoch."""


class Bus(Protocol):
    """A connection to a bus. It is used by one task for publishing, and read by one."""

    async def publish(self, messages: Sequence[Message], deadline_seconds: float = 10) -> list[Receipt]:
        """Publish and wait for what became of each, in the order given.

        Of messages with equal subject and key, none is stored after one that was not: a caller that
        publishes again from the first failure keeps their order whatever happens in between.

        Raises:
            BusError: the connection ended; none of the messages is known to be stored.
        """
        ...

    def read(
        self, stream: str, position: int, most: int = 1000, most_bytes: int = MOST_BYTES
    ) -> AsyncIterator[Sequence[Received]]:
        """Read ``stream`` after ``position`` in order, for ever; yields what is there, at most ``most``.

        No more than about ``most_bytes`` are fetched ahead or yielded at once, but always one message.

        Yields an empty sequence about every second when nothing comes, so that a reader can do other work.

        Raises:
            BusError: the connection ended; read again from the last position.
        """
        ...

    async def last_position(self, stream: str) -> int:
        """The position of the newest message, 0 when the stream never had one."""
        ...

    async def first_position(self, stream: str) -> int:
        """The position of the oldest message that is still there."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


_UNSAFE = re.compile(r"[\r\n\x00]")


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Encode ``headers`` as lines ``Name: value``; a value can't hold a line break."""
    return "".join(f"{name}: {_UNSAFE.sub(' ', value)}\r\n" for name, value in headers.items()).encode()


def event_headers(
    *,
    message_id: str,
    fingerprint: str,
    kind: str,
    tenant: str,
    aggregate_id: str,
    created_at: datetime,
    publisher: str,
    traceparent: str | None = None,
    replay_of: str | None = None,
    source: str = cloudevents.SOURCE,
) -> dict[str, str]:
    """The headers that every event carries, whoever publishes it; those of CloudEvents among them.

    ``message_id`` is the fingerprint for the first publish and something new for every later one, since
    the bus drops what it has seen. ``traceparent`` is that of W3C Trace Context.
    """
    created = created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    headers = {
        "Nats-Msg-Id": message_id,
        "fingerprint": fingerprint,
        "kind": kind,
        "tenant": tenant,
        "aggregate-id": aggregate_id,
        "created-at": created,
        "publisher": publisher,
    }
    if traceparent:
        headers["traceparent"] = traceparent
    if replay_of:
        headers["replay-of"] = replay_of
    attributes = {
        "id": f"{tenant}/{fingerprint}",
        "type": kind,
        "subject": aggregate_id,
        "time": created,
        "tenant": tenant,
        "traceparent": traceparent or None,
    }
    return headers | cloudevents.headers_of(source, attributes)
