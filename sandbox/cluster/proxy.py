"""A Service's address: connections to it go to a ready pod, which is kube-proxy's part in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from typing_extensions import override

Choose = Callable[[], tuple[str, int] | None]
"""The address and port for the next connection, None while no pod is ready."""


class _Pipe(asyncio.Protocol):
    """One side of a proxied connection: what it reads its peer writes, no faster than the peer can."""

    def __init__(self) -> None:
        self.peer: _Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def join(self, peer: _Pipe) -> None:
        """Connect to the other side, handing over what has come meanwhile."""
        self.peer = peer
        for data in self._early:
            self.data_received(data)
        self._early.clear()

    @override
    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self._early.append(data)
        else:
            self.peer.transport.write(data)

    @override
    def eof_received(self) -> bool:
        if self.peer is not None and self.peer.transport is not None and self.peer.transport.can_write_eof():
            self.peer.transport.write_eof()
        return True

    @override
    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            # A reset is passed on as one: the other side must not take it for a complete answer.
            if exc is not None:
                self.peer.transport.abort()
            else:
                self.peer.transport.close()
        self.peer = None


class _Entrance(_Pipe):
    """The client's side: connects to a pod as soon as a client has connected."""

    def __init__(self, choose: Choose, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._choose = choose
        self._tasks = tasks

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        target = self._choose()
        if self.transport is None:
            return
        self.transport.pause_reading()
        try:
            if target is None:
                self.transport.abort()
                return
            _, pod = await asyncio.get_running_loop().create_connection(_Pipe, *target)
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            if pod.transport is not None:
                pod.transport.close()
            return
        pod.join(self)
        self.join(pod)
        self.transport.resume_reading()


async def serve(address: str, port: int, choose: Choose) -> asyncio.Server:
    """Listen on a Service's address and port.

    Raises:
        OSError: something else listens there.
    """
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Entrance(choose, tasks), address, port, backlog=1024)
