"""A bus with declared streams of its own a test, and a reader of everything that is on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kilo.bus import Bus, Received, connect
from kilo.contract import StackOutputs
from kilo.testing.servers.nats import NatsServer
from sandbox.servers.kafka import KafkaServer
from tests.events import declare, make_outputs
from tests.patience import PATIENCE_SECONDS
from tests.runtime.bus.guarded_kafka import KafkaOfUsers, kafka_of_users


@dataclass
class BusServer:
    """A server that a test may kill, with the stage's streams."""

    server: NatsServer | KafkaServer
    outputs: StackOutputs
    url: str = ""
    """Where a reader of it goes, when not to the server's own URL."""

    async def connect(self) -> Bus:
        return await connect(self.url or self.server.url)

    async def all(self) -> list[Received]:
        """Everything in the event stream."""
        bus, stream = await self.connect(), self.outputs.bus.stream
        try:
            newest = await bus.last_position(stream)
            found: list[Received] = []
            if newest == 0 or await bus.first_position(stream) > newest:
                return found
            deadline = time.monotonic() + PATIENCE_SECONDS
            async for batch in bus.read(stream, 0):
                found += batch
                # The newest may have been deleted; a reader of Kafka is quiet at first.
                if found and (not batch or found[-1].position >= newest):
                    return found
                assert time.monotonic() < deadline, f"nothing of {newest} messages came"
            return found
        finally:
            await bus.close()

    async def wait(self, enough: Callable[[list[Received]], bool]) -> list[Received]:
        """Everything in the event stream once it is ``enough``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not enough(found := await self.all()):
            assert time.monotonic() < deadline, f"{len(found)} messages"
            await asyncio.sleep(0.1)
        return found


async def declared(server: NatsServer | KafkaServer, topic: str = "events") -> BusServer:
    """``server`` with the streams of a stage."""
    outputs = make_outputs(server.url, topic=topic)
    await declare(server.url, outputs)
    return BusServer(server, outputs)


@pytest.fixture(scope="session")
def one_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaOfUsers]:
    made = kafka_of_users(tmp_path_factory.mktemp("kafka"))
    made.server.start()
    yield made
    made.server.kill()


@pytest.fixture
def kafka(one_kafka: KafkaOfUsers) -> KafkaOfUsers:
    """A Kafka for everybody and for users, which a test may kill; the topics on it are a test's own."""
    one_kafka.server.start()
    return one_kafka


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(own_nats: NatsServer) -> BusServer:
    return await declared(own_nats)
