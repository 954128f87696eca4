"""The port on Kafka, with confluent-kafka and its idempotent producer (needs the extra ``kafka``).

A message goes to the topic that its subject names, and its key decides the partition, so that order holds
per aggregate. A position is one number, so what is read is one topic with one partition. Kafka knows no
message ids: a publish that is repeated by a new producer is stored again and no receipt says
``duplicate``; the consumers' inbox does that part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from runtime.bus.port import BusError, Message, Receipt, Received

_IDLE_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_NO_ANSWER = Receipt(None, error="no acknowledgement in time")


class KafkaBus:
    """A connection to Kafka."""

    def __init__(self, servers: str, name: str) -> None:
        self._servers = servers
        self._name = name
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "client.id": name,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 10_000,
                "log_level": 0,
            }
        )

    @classmethod
    async def connect(cls, url: str, name: str) -> Self:
        """See :func:`runtime.bus.connect`."""
        bus = cls(url.partition("://")[2], name)
        try:
            await asyncio.to_thread(bus._producer.list_topics, timeout=_ANSWER_SECONDS)
        except KafkaException as error:
            msg = f"bus kafka://{bus._servers} does not answer: {error.args[0].str()}"
            raise BusError(msg) from error
        return bus

    async def publish(self, messages: Sequence[Message], deadline_seconds: float = 10) -> list[Receipt]:
        """See :meth:`runtime.bus.Bus.publish`."""
        return await asyncio.to_thread(self._publish, messages, deadline_seconds)

    def _publish(self, messages: Sequence[Message], deadline_seconds: float) -> list[Receipt]:
        receipts = [_NO_ANSWER] * len(messages)

        def done(number: int) -> Any:
            def delivered(error: KafkaError | None, message: KafkaMessage) -> None:
                receipts[number] = (
                    Receipt(None, error=error.str()) if error else Receipt((message.offset() or 0) + 1)
                )

            return delivered

        for number, each in enumerate(messages):
            while True:
                try:
                    self._producer.produce(
                        each.subject,
                        each.payload,
                        each.key,
                        headers=_pairs(each.headers),
                        on_delivery=done(number),
                    )
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self._producer.poll(0)
        if self._producer.flush(deadline_seconds):
            # What is still queued would go out later, after the caller has published it again.
            self._producer.purge()
            self._producer.flush(1)
        return receipts

    async def read(self, stream: str, position: int, most: int = 1000) -> AsyncIterator[Sequence[Received]]:
        """See :meth:`runtime.bus.Bus.read`."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "client.id": self._name,
                "group.id": f"{self._name}-positions-are-kept-elsewhere",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(stream, 0, position)])
        try:
            while True:
                try:
                    found = await asyncio.to_thread(consumer.consume, most, _IDLE_SECONDS)
                except KafkaException as error:
                    msg = f"reading {stream}: {error.args[0].str()}"
                    raise BusError(msg) from error
                yield [_received(each) for each in found]
        finally:
            await asyncio.to_thread(consumer.close)

    async def last_position(self, stream: str) -> int:
        """See :meth:`runtime.bus.Bus.last_position`."""
        return (await self._offsets(stream))[1]

    async def first_position(self, stream: str) -> int:
        """See :meth:`runtime.bus.Bus.first_position`."""
        return (await self._offsets(stream))[0] + 1

    async def close(self) -> None:
        """See :meth:`runtime.bus.Bus.close`."""
        await asyncio.to_thread(self._producer.flush, 5)

    async def _offsets(self, stream: str) -> tuple[int, int]:
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "offsets", "log_level": 0})
        try:
            found = await asyncio.to_thread(
                consumer.get_watermark_offsets, TopicPartition(stream, 0), timeout=_ANSWER_SECONDS
            )
        except KafkaException as error:
            msg = f"topic {stream}: {error.args[0].str()}"
            raise BusError(msg) from error
        finally:
            await asyncio.to_thread(consumer.close)
        return found


def _pairs(headers: bytes) -> list[tuple[str, str | bytes | None]]:
    lines = headers.decode().split("\r\n")
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]


def _received(message: KafkaMessage) -> Received:
    error = message.error()
    if error:
        msg = f"reading {message.topic()}: {error.str()}"
        raise BusError(msg)
    headers = {name: _text(value) for name, value in message.headers() or []}
    return Received(
        (message.offset() or 0) + 1,
        message.topic() or "",
        headers,
        message.value() or b"",
        message.timestamp()[1] / 1000,
    )


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
