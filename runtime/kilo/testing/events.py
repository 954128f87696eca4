"""Carries a test's events from the outbox to a consumer, by the platform's own worker and over the bus."""

from __future__ import annotations

import asyncio

import psycopg
from nats.js import JetStreamContext

from kilo.bus import Bus, connect
from kilo.bus.nats import NatsBus
from kilo.consumer import Connections, Consumer
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.fle import AsyncFieldCipher
from kilo.fle.kms import KmsClients
from kilo.outbox.worker import Worker
from kilo.sensitive import TABLE

_POLL_SECONDS = 0.02


async def deliver(
    outputs: StackOutputs,
    database_url: str,
    consumer: Consumer,
    *,
    again: bool = False,
    kms: KmsClients | None = None,
    seconds: float = 30,
) -> None:
    """Publish what waits in the outbox, and return when ``consumer`` has read the whole stream.

    Args:
        outputs: of the fixture ``kilo_outputs``.
        database_url: where outbox and the consumer's tables are.
        consumer: what is tested.
        again: deliver all that the stream holds once more, under new message ids, as after a fault.
        kms: of the fixture ``kilo_kms``, where payloads have encrypted fields.
        seconds: after which to give up.

    Raises:
        CheckFailed: the consumer has not read everything in time; what a handler raised is in the inbox's
            dead letters.
    """

    async def connect_bus() -> Bus:
        return await connect(outputs.bus.url, "kilo-testing")

    await Worker(database_url, connect_bus).drain()
    bus = await NatsBus.connect(outputs.bus.url, "kilo-testing")
    try:
        jetstream = bus.client.jetstream()
        last = await _last(jetstream, outputs.bus.stream)
        if again:
            for number in range(1, last + 1):
                message = await jetstream.get_msg(outputs.bus.stream, number)
                headers = {**(message.headers or {}), "Nats-Msg-Id": f"again-{number}-{last}"}
                await jetstream.publish(message.subject or "", message.data or b"", headers=headers)
            last = await _last(jetstream, outputs.bus.stream)
    finally:
        await bus.close()
    cipher = AsyncFieldCipher.from_outputs(outputs, database_url, table=TABLE, kms=kms)
    stopping = asyncio.Event()
    connections = Connections(database_url, connect_bus, outputs.bus.stream, cipher)
    running = asyncio.ensure_future(consumer.run(connections, stopping))
    try:
        async with asyncio.timeout(seconds):
            while await _position(database_url, consumer.name) < last:  # noqa: ASYNC110  nobody says so
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        msg = f"consumer {consumer.name} has not read the stream to its end within {seconds:.0f} s"
        raise CheckFailed(msg) from None
    finally:
        stopping.set()
        await running


async def _last(jetstream: JetStreamContext, stream: str) -> int:
    return (await jetstream.stream_info(stream)).state.last_seq


async def _position(database_url: str, consumer: str) -> int:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT coalesce(max(position), 0) FROM consumer_positions WHERE consumer = %s", (consumer,)
        )
        row = await cursor.fetchone()
    return row[0] if row else 0
