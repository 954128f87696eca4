"""The port on a real Kafka broker; its jars are named by KAFKA_LIB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.bus import BusError, Message, connect, encode_headers
from sandbox.servers.kafka import KafkaServer

LIBRARIES = os.environ.get("KAFKA_LIB", "")
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="KAFKA_LIB names no directory with Kafka's jars")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path_factory.mktemp("kafka"), Path(LIBRARIES))
    server.start()
    client = AdminClient({"bootstrap.servers": f"127.0.0.1:{server.port}"})
    for made in client.create_topics([NewTopic("events.order", 1, 1)]).values():
        made.result()
    yield server
    server.kill()


async def test_what_is_published_is_read_in_order_with_its_headers(kafka: KafkaServer) -> None:
    bus = await connect(kafka.url)
    messages = [
        Message("events.order", str(n % 3), encode_headers({"fingerprint": f"f{n}"}), b'{"n": %d}' % n)
        for n in range(2000)
    ]
    receipts = await bus.publish(messages)
    assert [receipt.position for receipt in receipts] == list(range(1, 2001))
    assert (await bus.first_position("events.order"), await bus.last_position("events.order")) == (1, 2000)
    found = []
    async for batch in bus.read("events.order", 500):
        found += batch
        if len(found) >= 1500:
            break
    assert [each.payload for each in found] == [message.payload for message in messages[500:]]
    assert found[0].headers == {"fingerprint": "f500"}
    await bus.close()


async def test_what_no_topic_takes_is_an_error_of_that_message_alone(kafka: KafkaServer) -> None:
    bus = await connect(kafka.url)
    (receipt,) = await bus.publish([Message("nowhere.order", "k", b"", b"{}")], 3)
    assert receipt.position is None
    await bus.close()


async def test_a_broker_that_is_away_is_named() -> None:
    with pytest.raises(BusError, match=r"kafka://127.0.0.1:1 does not answer"):
        await connect("kafka://127.0.0.1:1")
