"""A service that can do so much a second and no more: ``python -m tests.surge.service WORKERS SECONDS``.

It has a process of its own, so that clients that are many take no time from it, and speaks just enough
HTTP/1.1. It prints its port, and tells at ``/counts`` what it served and how long its queue was, counted
anew from there.
"""

from __future__ import annotations

import asyncio
import sys

ADDRESS = "127.0.0.1"


class Service:
    """``workers`` requests at a time, each for ``seconds``, the others in a queue without end."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.served = 0
        self.longest_queue = 0
        self._seconds = seconds
        self._free = asyncio.Semaphore(workers)
        self._waiting = 0

    async def run(self) -> None:
        """Serve until the process ends."""
        server = await asyncio.start_server(self._connection, ADDRESS, 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await (self._counts() if b" /counts " in head else self._work())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _work(self) -> bytes:
        self._waiting += 1
        self.longest_queue = max(self.longest_queue, self._waiting)
        async with self._free:
            self._waiting -= 1
            await asyncio.sleep(self._seconds)
        self.served += 1
        return b"ok"

    async def _counts(self) -> bytes:
        counts = b"%d %d" % (self.served, self.longest_queue)
        self.served = self.longest_queue = 0
        return counts


if __name__ == "__main__":
    asyncio.run(Service(int(sys.argv[1]), float(sys.argv[2])).run())
