"""Chooses the adapter by the URL's scheme."""

from __future__ import annotations

from urllib.parse import urlsplit

from kilo.bus.port import Bus
from kilo.errors import BadInput
from kilo.extras import requires


async def connect(url: str, name: str = "kilo") -> Bus:
    """Connect to the bus at ``url``: ``nats://`` or ``tls://`` for NATS JetStream, ``kafka://`` for Kafka.

    Args:
        url: host and port, or several separated by commas; a user and password in it authenticate.
        name: what the server calls this connection in its own reports.

    Raises:
        BusError: it does not answer.
        BadInput: no adapter is known for the scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme in {"nats", "tls"}:
        with requires("consumer"):
            from kilo.bus.nats import NatsBus  # noqa: PLC0415

        return await NatsBus.connect(url, name)
    if scheme == "kafka":
        # Only the adapter that is used is imported: Kafka's needs an extra.
        with requires("kafka"):
            from kilo.bus.kafka import KafkaBus  # noqa: PLC0415

        return await KafkaBus.connect(url, name)
    msg = f"bus URL {url!r}: scheme {scheme!r} is unknown; use nats://, tls:// or kafka://"
    raise BadInput(msg)
