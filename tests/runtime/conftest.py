"""A bus with declared streams of its own a test, and a reader of everything that is on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kilo.bus import Bus, Received, connect
from kilo.contract import StackOutputs
from sandbox.servers.kafka import KafkaServer
from sandbox.servers.nats import NatsServer
from tests.events import declare, make_outputs


@dataclass
class BusServer:
    """A server that a test may kill, with the stage's streams."""

    server: NatsServer | KafkaServer
    outputs: StackOutputs

    async def connect(self) -> Bus:
        return await connect(self.server.url)

    async def all(self) -> list[Received]:
        """Everything in the event stream."""
        bus, stream = await self.connect(), self.outputs.bus.stream
        try:
            newest = await bus.last_position(stream)
            found: list[Received] = []
            quiet = 0
            async for batch in bus.read(stream, 0):
                found += batch
                # The newest may have been deleted; a reader of Kafka may be quiet at first.
                quiet += not batch
                if newest == 0 or (found and (not batch or found[-1].position >= newest)) or quiet > 5:
                    return found
            return found
        finally:
            await bus.close()

    async def wait(self, enough: Callable[[list[Received]], bool]) -> list[Received]:
        """Everything in the event stream once it is ``enough``."""
        found: list[Received] = []
        for _ in range(300):
            found = await self.all()
            if enough(found):
                return found
            await asyncio.sleep(0.1)
        msg = f"{len(found)} messages"
        raise AssertionError(msg)


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(own_nats: NatsServer) -> BusServer:
    outputs = make_outputs(own_nats.url)
    await declare(own_nats.url, outputs)
    return BusServer(own_nats, outputs)
