"""A TCP proxy on the loopback that cuts or stalls what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

from kilo.testing.servers.ports import free_port

_BYTES = 1 << 16


class Proxy:
    """Forwards ``127.0.0.1:port`` to ``127.0.0.1:target``, in a thread of its own."""

    def __init__(self, target: int | None = None) -> None:
        self.port = free_port()
        self.target = target
        """May be set later, when the server that is given this proxy's port has its own."""
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """End every connection without a word."""
        self._loop.call_soon_threadsafe(self._abort)

    def stall(self) -> None:
        """Let nothing through any more; connections stay open, new ones are taken."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Let everything through again, what was held back first."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def hang(self) -> None:
        """Let nothing more through on the connections that are open, ever; new ones flow."""
        self._loop.call_soon_threadsafe(self._hang)

    def _hang(self) -> None:
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _listen(self) -> None:
        self._flowing.set()
        await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, there_writer}
        flowing = self._flowing
        ways = [
            self._forward(reader, there_writer, flowing),
            self._forward(there_reader, writer, flowing),
        ]
        await asyncio.wait([asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, there_writer):
            each.transport.abort()
            self._open.discard(each)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_BYTES):
                await flowing.wait()
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
