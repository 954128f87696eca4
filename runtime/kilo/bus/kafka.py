"""The port on Kafka, with confluent-kafka and its idempotent producer (needs the extra ``kafka``).

A stream is a topic with one partition, so that a position is one number and order holds across everything
that is read. A message goes to the topic that its subject's first token names; the rest of the subject, the
aggregate, travels as a header, as it does from change capture. Kafka knows no message ids: a publish that is
repeated by another producer is stored again and no receipt says ``duplicate``; the consumers' inbox does
that part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from kilo.bus.access import Access
from kilo.bus.cloudevents import from_kafka, to_kafka
from kilo.bus.kafka_access import Failures, client_settings, list_topics
from kilo.bus.port import DECLARE_AGAIN, MOST_BYTES, BusError, Message, Receipt, Received
from kilo.bus.roles import KAFKA_GROUP

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
AGGREGATE_HEADER = "aggregate"
_IDLE_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_NO_ANSWER = Receipt(None, error="no acknowledgement in time")
_UNDECLARED = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # pyright: ignore[reportPrivateUsage]
    KafkaError._UNKNOWN_TOPIC,  # pyright: ignore[reportPrivateUsage]
}
_AFTER_FAILURE = Receipt(None, error="an earlier message of its key was not taken")


class KafkaBus:
    """A connection to Kafka."""

    def __init__(self, servers: str, name: str) -> None:
        self._servers = servers
        self._access = Access.from_environment()
        self._settings: dict[str, Any] = {
            "bootstrap.servers": servers,
            "client.id": name,
            **client_settings(self._access),
            "log_level": 0,
        }
        self._failures = Failures()
        self._offset_reader: Consumer | None = None
        self._producer: Producer | None = None
        """Made when something is published: Kafka gives it an identity, which readers may not have."""

    @classmethod
    async def connect(cls, url: str, name: str) -> Self:
        """See :func:`kilo.bus.connect`."""
        # An AWS identity is asked for over the network, and each client waits for its first token.
        bus = await asyncio.to_thread(cls, url.partition("://")[2], name)
        await asyncio.to_thread(bus._try)
        return bus

    def _try(self) -> None:
        # Neither of the other two: a consumer keeps what it has to say of its connections to itself.
        client = AdminClient(self._common())
        try:
            list_topics(client, self._failures, _ANSWER_SECONDS)
        except KafkaException as error:
            msg = self._failures.refusal(self._servers, self._access, error)
            raise BusError(msg) from error

    def _common(self) -> dict[str, Any]:
        return {**self._settings, "error_cb": self._failures}

    def _new_producer(self) -> Producer:
        return Producer(
            {
                **self._common(),
                "enable.idempotence": True,
                "linger.ms": 2,
                "queue.buffering.max.kbytes": 2 * MOST_BYTES // 1024,
                # What is too large is found here, where later ones of its key can still be held back.
                "message.max.bytes": MAX_MESSAGE_BYTES,
                # A message that expired by itself would let the later ones of its key pass: they all end
                # together, by the deadline of the call.
                "message.timeout.ms": 0,
                # A topic that is made at this moment may be unknown for so long.
                "topic.metadata.propagation.max.ms": 2000,
            }
        )

    async def publish(self, messages: Sequence[Message], deadline_seconds: float = 10) -> list[Receipt]:
        """See :meth:`kilo.bus.Bus.publish`."""
        return await asyncio.to_thread(self._publish, messages, deadline_seconds)

    def _publish(self, messages: Sequence[Message], deadline_seconds: float) -> list[Receipt]:
        try:
            producer = self._producer = self._producer or self._new_producer()
            receipts, left = self._hand_over(producer, messages, deadline_seconds)
        except (KafkaException, SystemError) as error:
            # What ends a producer for good, such as a right that it lacks, is raised in the midst of its
            # callbacks, the next of which may trip over it.
            self._producer = None
            reason = error if isinstance(error, KafkaException) else error.__cause__
            msg = f"bus kafka://{self._servers} takes nothing of this process: {reason or error}"
            raise BusError(msg) from error
        if left:
            # What is still under way would be stored later, after the caller has published it again.
            producer.purge()
            producer.flush(1)
            self._producer = None
            if all(receipt.position is None for receipt in receipts):
                msg = f"bus kafka://{self._servers} took nothing within {deadline_seconds:g} s"
                raise BusError(msg)
        return receipts

    def _hand_over(
        self, producer: Producer, messages: Sequence[Message], deadline_seconds: float
    ) -> tuple[list[Receipt], int]:
        """Receipts so far, and how many messages are under way after the deadline."""
        receipts = [_NO_ANSWER] * len(messages)
        failed: set[tuple[str, str]] = set()

        def done(number: int) -> Any:
            def delivered(error: KafkaError | None, message: KafkaMessage) -> None:
                receipts[number] = (
                    Receipt(None, error=_said(error)) if error else Receipt((message.offset() or 0) + 1)
                )

            return delivered

        for number, each in enumerate(messages):
            if (each.subject, each.key) in failed:
                receipts[number] = _AFTER_FAILURE
                continue
            try:
                _produce(producer, each, done(number))
            except KafkaException as error:
                receipts[number] = Receipt(None, error=_said(error.args[0]))
                failed.add((each.subject, each.key))
            producer.poll(0)
        return receipts, producer.flush(deadline_seconds)

    async def read(
        self, stream: str, position: int, most: int = 1000, most_bytes: int = MOST_BYTES
    ) -> AsyncIterator[Sequence[Received]]:
        """See :meth:`kilo.bus.Bus.read`."""
        consumer = await asyncio.to_thread(self._new_consumer, most_bytes)
        consumer.assign([TopicPartition(stream, 0, position)])
        try:
            while True:
                try:
                    found = await asyncio.to_thread(_consume, consumer, most, most_bytes)
                except KafkaException as error:
                    msg = f"reading {stream}: {error.args[0].str()}"
                    raise BusError(msg) from error
                yield [_received(each) for each in found]
        finally:
            await asyncio.to_thread(consumer.close)

    async def last_position(self, stream: str) -> int:
        """See :meth:`kilo.bus.Bus.last_position`."""
        return (await self._offsets(stream))[1]

    async def first_position(self, stream: str) -> int:
        """See :meth:`kilo.bus.Bus.first_position`."""
        return (await self._offsets(stream))[0] + 1

    async def close(self) -> None:
        """See :meth:`kilo.bus.Bus.close`."""
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, 5)
        if self._offset_reader is not None:
            await asyncio.to_thread(self._offset_reader.close)

    async def _offsets(self, stream: str) -> tuple[int, int]:
        self._offset_reader = self._offset_reader or await asyncio.to_thread(self._new_consumer)
        return await asyncio.to_thread(self._read_offsets, self._offset_reader, stream)

    def _read_offsets(self, reader: Consumer, stream: str) -> tuple[int, int]:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return reader.get_watermark_offsets(TopicPartition(stream, 0), timeout=_ANSWER_SECONDS)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.code() in _UNDECLARED:
                    msg = f"stream {stream} is not declared: {DECLARE_AGAIN} makes it"
                    raise BusError(msg) from error
                # A partition that elects its leader answers in a moment.
                passing = reason.retriable() or reason.code() == KafkaError.NOT_LEADER_FOR_PARTITION
                if not passing or time.monotonic() > deadline:
                    msg = f"stream {stream}: {reason.str()}"
                    raise BusError(msg) from error
                time.sleep(0.1)

    def _new_consumer(self, most_bytes: int = MOST_BYTES) -> Consumer:
        settings = {
            **self._settings,
            # Required, and used for nothing: positions are kept by whoever reads.
            "group.id": KAFKA_GROUP,
            "enable.auto.commit": False,
            # Nothing is passed over where retention overtook a position or the topic was made anew.
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            # By default 64 MiB are fetched ahead. No message is larger than what one fetch may bring.
            "queued.max.messages.kbytes": max(most_bytes // 1024, 1),
            "fetch.max.bytes": max(most_bytes, MAX_MESSAGE_BYTES),
            "fetch.message.max.bytes": MAX_MESSAGE_BYTES,
        }
        try:
            return Consumer(settings)
        except KafkaException as error:  # no token came
            msg = f"bus kafka://{self._servers}: {error.args[0].str()}"
            raise BusError(msg) from error


def _consume(consumer: Consumer, most: int, most_bytes: int) -> list[KafkaMessage]:
    """What is there, at most ``most`` messages and about ``most_bytes``; waits for the first alone."""
    found: list[KafkaMessage] = []
    size, largest, asked = 0, 0, 1
    while asked > 0:
        got = consumer.consume(asked, 0 if found else _IDLE_SECONDS)
        found += got
        sizes = [len(each.value() or b"") for each in got]
        size, largest = size + sum(sizes), max([largest, *sizes])
        if len(got) < asked or size >= most_bytes:
            break
        # As many as fit if none is larger than those so far.
        asked = min(most - len(found), 8 * asked, (most_bytes - size) // max(largest, 1))
    return found


def _said(error: KafkaError) -> str:
    if error.code() in _UNDECLARED:
        return "no stream takes this subject"
    if error.code() in {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}:  # pyright: ignore[reportPrivateUsage]
        return "no acknowledgement in time"
    return error.str()


def _produce(producer: Producer, message: Message, delivered: Any) -> None:
    topic, _, aggregate = message.subject.partition(".")
    headers = [*_pairs(message.headers), (AGGREGATE_HEADER, aggregate)]
    while True:
        try:
            producer.produce(topic, message.payload, message.key, headers=headers, on_delivery=delivered)
        except BufferError:
            producer.poll(0.05)
        else:
            return


def _pairs(headers: bytes) -> list[tuple[str, str | bytes | None]]:
    lines = headers.decode().split("\r\n")
    return [to_kafka(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]


def _received(message: KafkaMessage) -> Received:
    error = message.error()
    if error:
        msg = f"reading {message.topic()}: {error.str()}"
        raise BusError(msg)
    headers = dict(from_kafka(name, _text(value)) for name, value in message.headers() or [])
    aggregate = headers.pop(AGGREGATE_HEADER, "")
    return Received(
        (message.offset() or 0) + 1,
        f"{message.topic()}.{aggregate}",
        headers,
        message.value() or b"",
        message.timestamp()[1] / 1000,
    )


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
