"""Clients that don't care how many they are; they speak just enough HTTP/1.1 to be cheap."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.surge.service import ADDRESS

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Running:
    """A service with a process of its own."""

    port: int
    capacity: float
    """Requests a second, as arithmetic has it."""

    def counts(self) -> tuple[int, int]:
        """What it served since it was last asked, and its longest queue."""
        served, queue = httpx.get(f"http://{ADDRESS}:{self.port}/counts", timeout=30).text.split()
        return int(served), int(queue)


@contextmanager
def running(workers: int, seconds: float) -> Generator[Running]:
    """Run a service for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.surge.service", str(workers), str(seconds)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Running(int(process.stdout.readline()), workers / seconds)
        finally:
            process.kill()


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
    sent: list[float] = field(default_factory=list[float])
    """When each request was sent, in seconds since the epoch."""
    hints: list[str] = field(default_factory=list[str])
    limits: Counter[str] = field(default_factory=Counter[str])
    """Which limit refused, as the problems say."""
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

    def __init__(self, port: int, address: str = ADDRESS) -> None:
        self._port = port
        self._address = address
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, headers: Mapping[str, str], result: Result) -> None:
        """Send one POST and note what came of it."""
        begun = time.monotonic()
        result.sent.append(time.time())
        try:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection(self._address, self._port)
            )
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST /v1/events HTTP/1.1\r\nhost: x\r\n{lines}content-length: 0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = _content_length(head)
            body = await reader.readexactly(length) if length > 0 else b""
        except (OSError, asyncio.IncompleteReadError):
            result.lost += 1
            return
        status = int(head[9:12])
        result.statuses[status] += 1
        if found := re.search(rb'"limit":"(\w+)"', body):
            result.limits[found[1].decode()] += 1
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
        while self._idle:
            self._idle.pop()[1].close()
