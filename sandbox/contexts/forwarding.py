"""Takes connections on to where they can't be made directly. It runs in two places.

On this machine, so that a cluster's pods reach the sandbox's servers, which listen on loopback alone. And in
a pod there, by :func:`main`: ``kubectl port-forward`` connects to a pod's loopback address, while the
stage's processes listen on their pod's own. So it knows nothing of the sandbox, which pods don't have.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from kilo.errors import Unreachable

LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 1 << 16


def address_file(home: Path) -> Path:
    """Says on which address of this machine others reach the sandbox whose ``.kilo`` is ``home``."""
    return home / "reached-at"


def address_of(home: Path) -> str:
    """The address on which the sandbox is reached: loopback, unless a file says otherwise."""
    try:
        return address_file(home).read_text(encoding="ascii").strip() or LOOPBACK
    except OSError:
        return LOOPBACK


async def forward(address: str, ports: Iterable[int], host: str = LOOPBACK) -> list[asyncio.Server]:
    """Take connections to ``ports`` of ``address`` on to the same ports of ``host``, until they are closed.

    Raises:
        Unreachable: the address is not this machine's, or a port of it is taken.
    """
    opened: list[asyncio.Server] = []
    for port in ports if address != host else ():
        try:
            opened.append(await asyncio.start_server(_to(host, port), address, port))
        except OSError as error:
            for server in opened:
                server.close()
            msg = (
                f"--address {address}: port {port} can't be listened on ({error.strerror}); "
                "name an address of this machine that the cluster's pods reach"
            )
            raise Unreachable(msg) from error
    return opened


def _to(
    host: str, port: int
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, onward[1]), _copy(onward[0], writer))
        for each in (writer, onward[1]):
            each.close()

    return take


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has said all, which the other is told: a half-closed connection stays one."""
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # Who has gone needs nothing more, and the other is not to wait for it.
        with contextlib.suppress(OSError):
            writer.transport.abort()


async def main(host: str, port: int) -> None:
    """Take connections to loopback on to ``host`` for as long as the process runs."""
    (server,) = await forward(LOOPBACK, [port], host)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
