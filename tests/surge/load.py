"""A service that can do so much a second and no more, and clients that don't care.

Both speak just enough HTTP/1.1 to be quick: what is measured is the gateway between them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

ADDRESS = "127.0.0.1"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Service:
    """``workers`` requests at a time, each for ``seconds``, the others in a queue without end."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.capacity = workers / seconds
        self.served = 0
        self.longest_queue = 0
        self._seconds = seconds
        self._free = asyncio.Semaphore(workers)
        self.waiting = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, ADDRESS, 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if (length := _content_length(head)) > 0:
                    await reader.readexactly(length)
                self.waiting += 1
                self.longest_queue = max(self.longest_queue, self.waiting)
                async with self._free:
                    self.waiting -= 1
                    await asyncio.sleep(self._seconds)
                self.served += 1
                writer.write(_ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


@dataclass
class Result:
    """What one tenant's clients got."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[float] = field(default_factory=list[float])
    """Of answers with 200."""
    hints: list[str] = field(default_factory=list[str])
    lost: int = 0

    @property
    def asked(self) -> int:
        return sum(self.statuses.values()) + self.lost

    @property
    def served(self) -> float:
        """The share that was answered with 200."""
        return self.statuses[200] / max(1, self.asked)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0

    def within(self, seconds: float) -> int:
        """How many were answered with 200 in time."""
        return sum(each <= seconds for each in self.seconds)


class Clients:
    """Connections to one gateway, kept open and shared."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, headers: Mapping[str, str], result: Result) -> None:
        """Send one POST and note what came of it."""
        begun = time.monotonic()
        try:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection(ADDRESS, self._port)
            )
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST /v1/events HTTP/1.1\r\nhost: x\r\n{lines}content-length: 0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if (length := _content_length(head)) > 0:
                await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            result.lost += 1
            return
        status = int(head[9:12])
        result.statuses[status] += 1
        if status == 200:
            result.seconds.append(time.monotonic() - begun)
        for line in head.decode("latin-1").split("\r\n"):
            if line.startswith("retry-after:"):
                result.hints.append(line.partition(": ")[2])
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))

    async def offer(self, tenant: str, requests_per_second: float, seconds: float, result: Result) -> None:
        """Send requests at a rate, whatever becomes of those before: as many clients as that takes."""
        tasks: set[asyncio.Task[None]] = set()
        begun, sent = time.monotonic(), 0
        while (now := time.monotonic() - begun) < seconds:
            while sent < now * requests_per_second:
                sent += 1
                tasks.add(task := asyncio.create_task(self.ask({"x-tenant-id": tenant}, result)))
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(random.expovariate(requests_per_second) if requests_per_second < 50 else 0.01)
        await asyncio.gather(*tasks)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
