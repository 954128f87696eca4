"""A way to the bus through TLS for a client beside this process, which speaks plainly to it.

Debezium's client of NATS gives a connection two seconds, Java's first TLS handshake included, and takes no
other number: on a busy machine none of its starts came through. Nor does it look whether the certificate is
the bus's. So it connects to this process, in its own pod, which does both. It shows the bus its own user and
password through here: whoever else finds the port has to as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from kilo.bus.access import Access
from kilo.errors import BadInput, Unreachable

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10
_CHUNK_BYTES = 1 << 16
_INFO = b"INFO "
_NOT_TOLD = frozenset({"tls_required", "tls_available", "tls_verify", "connect_urls"})


class Tunnel:
    """Takes connections at ``host``:``port`` and carries each to the bus.

    Args:
        host: this pod's address.
        port: where the client connects.
        url: the bus's, ``tls://host:port``, of which the first is taken where there are several.
        access: whom to believe, asked anew for each connection.
    """

    def __init__(self, host: str, port: int, url: str, access: Callable[[], Access]) -> None:
        self._host, self._port, self._access = host, port, access
        first = urlsplit(url.split(",", maxsplit=1)[0])
        if first.scheme != "tls" or first.hostname is None or first.port is None:
            msg = f"bus URL {url!r}: a tunnel leads to a NATS with TLS, tls://host:port"
            raise BadInput(msg)
        self._bus_host, self._bus_port = first.hostname, first.port

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry until ``stopping`` is set.

        Raises:
            Unreachable: the port can't be listened on.
        """
        try:
            server = await asyncio.start_server(self._carry, self._host, self._port)
        except OSError as error:
            msg = f"{self._host}:{self._port}: can't be listened on: {error.strerror or error}"
            raise Unreachable(msg) from error
        async with server:
            await stopping.wait()
            server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bus_writer: asyncio.StreamWriter | None = None
        try:
            bus_reader, bus_writer, greeting = await asyncio.wait_for(self._reach(), _CONNECT_SECONDS)
            writer.write(greeting)
            ways = [
                asyncio.ensure_future(_pump(reader, bus_writer)),
                asyncio.ensure_future(_pump(bus_reader, writer)),
            ]
            # When one side has ended nobody waits for what the other would still say.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except (TimeoutError, OSError, EOFError, ValueError, BadInput) as error:
            address = f"tls://{self._bus_host}:{self._bus_port}"
            said = Access(ca_file=self._access().ca_file).refusal(address, error)
            logger.warning("%s", said)
        finally:
            writer.close()
            if bus_writer:
                bus_writer.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """A connection to the bus within TLS, and what the bus says of itself, as if there were none."""
        access = self._access()
        context = access.tls() or ssl.create_default_context()
        reader, writer = await asyncio.open_connection(self._bus_host, self._bus_port)
        try:
            greeting = _greeting(await reader.readuntil(b"\r\n"))
            await writer.start_tls(context, server_hostname=access.server_name or self._bus_host)
        except BaseException:
            writer.close()
            raise
        return reader, writer, greeting


def _greeting(line: bytes) -> bytes:
    """The bus's first line as the client is to read it.

    Raises:
        ValueError: it is none, or offers no TLS.
    """
    info: dict[str, Any] = json.loads(line.removeprefix(_INFO))
    if not info.get("tls_required"):
        msg = "it offers no TLS, without which nothing is shown to it"
        raise ValueError(msg)
    plain = {name: value for name, value in info.items() if name not in _NOT_TOLD}
    return _INFO + json.dumps(plain).encode() + b"\r\n"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
