"""On Kafka: a consumer whose next messages retention has removed, a broker that is killed, and the refill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from sandbox.servers.kafka import KafkaServer
from tests.runtime.conftest import BusServer, declared
from tests.runtime.consumer.test_retention import (
    COUNT,
    GAPS,
    behind,
    check_refilled,
    counts,
    lost,
    refill,
)
from tests.runtime.consumer.test_retention import stage as stage  # noqa: PLC0414  a fixture


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bus(own_kafka: KafkaServer) -> BusServer:
    return await declared(own_kafka)


async def remove(bus: BusServer, first: int) -> None:
    """Have the topic give up everything before the position ``first``, as its retention would."""
    admin = AdminClient({"bootstrap.servers": bus.server.url.partition("://")[2]})
    offset = TopicPartition(bus.outputs.bus.stream, 0, first - 1)
    for done in admin.delete_records([offset]).values():
        await asyncio.to_thread(done.result, timeout=30)


@pytest.mark.usefixtures("stage")
async def test_what_retention_removed_is_counted_and_filled_again_over_a_killed_broker(
    database_url: str, bus: BusServer, caplog: pytest.LogCaptureFixture
) -> None:
    stream = bus.outputs.bus.stream
    one = await behind(database_url, bus, remove)
    before = lost()
    async with one.running():
        await one.until(COUNT, [(15,)])
        assert one.sql(GAPS) == [("test", stream, 11, 25, False)]
        assert "15 messages that consumer test has not read, positions 11 to 25" in caplog.text
        assert lost() == before + 15
        await asyncio.to_thread(bus.server.kill)
        await asyncio.to_thread(bus.server.start)
        assert counts(await refill("--dry-run")) == (15, 12, 0, 3)
        assert counts(await refill()) == (15, 12, 12, 3)
        await one.until(COUNT, [(27,)])
        # The broker goes again, and whoever repeats the refill doubles nothing.
        await asyncio.to_thread(bus.server.kill)
        await asyncio.to_thread(bus.server.start)
        one.sql("UPDATE consumer_gaps SET refilled_at = NULL")
        assert (await refill())["republished"] == 0
    check_refilled(one)
    assert one.sql(GAPS) == [("test", stream, 11, 25, True)]
