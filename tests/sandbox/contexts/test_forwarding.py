"""The sandbox's servers are reached by another address of this machine, over real sockets."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from kilo.errors import Unreachable
from sandbox.contexts import forwarding
from sandbox.contexts.forwarding import LOOPBACK, address_file, address_of, forward
from tests.patience import PATIENCE_SECONDS

OTHER = "127.9.9.9"
CODE = Path(forwarding.__file__).read_text()


async def serve(answer: bytes) -> asyncio.Server:
    """Reads all that is said, and then answers: only a half-closed connection gets an answer."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(answer + said)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(take, LOOPBACK, 0)


async def test_what_is_said_gets_there_and_back_whole() -> None:
    server = await serve(b"answer to ")
    port = server.sockets[0].getsockname()[1]
    opened = await forward(OTHER, [port])
    said = b"x" * 3_000_000
    reader, writer = await asyncio.open_connection(OTHER, port)
    writer.write(said)
    writer.write_eof()
    assert await reader.read() == b"answer to " + said
    for each in (*opened, server):
        each.close()


async def test_a_server_that_is_away_is_a_closed_connection() -> None:
    server = await serve(b"")
    port = server.sockets[0].getsockname()[1]
    opened = await forward(OTHER, [port])
    server.close()
    await server.wait_closed()
    reader, _ = await asyncio.open_connection(OTHER, port)
    assert await reader.read() == b""
    opened[0].close()


async def test_a_pod_relays_by_the_text_of_the_module_alone(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"greetings")
        writer.close()

    behind = await asyncio.start_server(greet, OTHER, 0)
    port = behind.sockets[0].getsockname()[1]
    relay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", CODE, OTHER, str(port)), cwd=tmp_path
    )

    async def greeted() -> bool:
        try:
            reader, _ = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        return await reader.read() == b"greetings"

    try:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not await greeted():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
    finally:
        relay.kill()
        await relay.wait()
        behind.close()


async def test_another_machines_address_is_refused_and_nothing_stays_open() -> None:
    server = await serve(b"")
    port = server.sockets[0].getsockname()[1]
    taken = await asyncio.start_server(lambda _, writer: writer.close(), OTHER, 0)
    blocked = taken.sockets[0].getsockname()[1]
    with pytest.raises(Unreachable, match=rf"--address 192.0.2.1: port {port} can't be listened on"):
        await forward("192.0.2.1", [port])
    with pytest.raises(Unreachable, match=str(blocked)):
        await forward(OTHER, [port, blocked])
    (again,) = await forward(OTHER, [port])
    for each in (again, taken, server):
        each.close()


async def test_without_an_address_nothing_listens_anywhere_else(tmp_path: Path) -> None:
    assert address_of(tmp_path) == LOOPBACK
    assert await forward(LOOPBACK, [1]) == []
    address_file(tmp_path).write_text("10.0.0.1\n")
    assert address_of(tmp_path) == "10.0.0.1"
