"""Reads a JetStream stream in order from a position, without state on the server.

A pull consumer without acknowledgements that starts at the position and goes away by itself. Its
deliveries are numbered without gaps, so one that was lost on the way is noticed, and reading starts again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from kilo.bus.port import BusError, Received

_IDLE_SECONDS = 1.0
_EXPIRES_SECONDS = 30
_INACTIVE_SECONDS = 120


class _Gap(Exception):
    """A delivery is missing."""


async def read(
    client: Client, closed: asyncio.Event, stream: str, position: int, most: int, *, most_bytes: int
) -> AsyncIterator[Sequence[Received]]:
    """See :meth:`kilo.bus.Bus.read`."""
    made_at = None
    while True:
        try:
            info = await client.jetstream().stream_info(stream)
            if made_at not in {None, info.created}:
                # Its positions are others': the reader has to see what it goes on from.
                msg = f"stream {stream} was made anew"
                raise BusError(msg)
            made_at = info.created
            async for batch in _once(client, closed, stream, position, most, most_bytes=most_bytes):
                if batch:
                    position = batch[-1].position
                yield batch
        except _Gap:
            continue
        except (TimeoutError, APIError, NatsError, OSError) as error:
            msg = f"reading stream {stream}: {error or type(error).__name__}"
            raise BusError(msg) from error


async def _once(
    client: Client, closed: asyncio.Event, stream: str, position: int, most: int, *, most_bytes: int
) -> AsyncIterator[Sequence[Received]]:
    jetstream = client.jetstream()
    made = await jetstream.add_consumer(
        stream,
        ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=position + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_INACTIVE_SECONDS,
            mem_storage=True,
            num_replicas=1,
            max_waiting=8,
        ),
    )
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{made.name}"
    # The server ends a request before it has sent more bytes than this: more than its pending limit for one
    # client (64 MiB) would end the connection. https://docs.nats.io/reference/reference-protocols/nats_api_reference
    request = json.dumps(
        {"batch": most, "max_bytes": most_bytes, "expires": _EXPIRES_SECONDS * 1_000_000_000}
    ).encode()
    expected, wanted = 1, 0
    loop = asyncio.get_running_loop()
    asked_at = 0.0
    try:
        while True:
            if wanted <= 0 or loop.time() - asked_at > _EXPIRES_SECONDS + 2:
                await client.publish(ask, request, reply=inbox)
                wanted, asked_at = most, loop.time()
            batch: list[Received] = []
            try:
                message = await subscription.next_msg(_IDLE_SECONDS)
            except NatsTimeout:
                if closed.is_set():
                    msg = "the bus ended the connection"
                    raise BusError(msg) from None
                yield batch
                continue
            while True:
                if _is_delivery(message):
                    received, number = _received(message)
                    if number != expected:
                        raise _Gap
                    expected += 1
                    wanted -= 1
                    batch.append(received)
                else:
                    wanted = _after_status(message, wanted)
                if len(batch) >= most or subscription.pending_msgs == 0:
                    break
                message = await subscription.next_msg(_IDLE_SECONDS)
            if batch:
                yield batch
    finally:
        await _forget(client, subscription, stream, made.name)


def _is_delivery(message: Msg) -> bool:
    return message.reply.startswith("$JS.ACK.")


def _received(message: Msg) -> tuple[Received, int]:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<timestamp>.<pending>,
    # with a domain and account hash before the stream on newer servers: count from the end.
    tokens = message.reply.split(".")
    base = 2 if len(tokens) < 11 else 4
    received = Received(
        int(tokens[base + 3]),
        message.subject,
        message.headers or {},
        message.data,
        int(tokens[base + 5]) / 1e9,
    )
    return received, int(tokens[base + 4])


def _after_status(message: Msg, wanted: int) -> int:
    status = (message.headers or {}).get("Status", "")
    if status in {"404", "408"}:
        return 0
    if status == "409":
        description = (message.headers or {}).get("Description", "")
        if "Consumer Deleted" in description or "Leadership" in description:
            raise _Gap
        return 0
    if status == "503":
        raise _Gap
    return wanted


async def _forget(client: Client, subscription: Any, stream: str, consumer: str) -> None:
    if client.is_closed:
        return
    try:
        await subscription.unsubscribe()
        await client.jetstream().delete_consumer(stream, consumer)
    except (TimeoutError, APIError, NatsError, OSError):
        return
