"""From an event's commit to a subscriber of the bus, while events are written at a steady rate.

Writers commit one event each, over connections of their own, so that commits share the disk's syncs as
those of a service do. A commit's answer starts the clock, the message's arrival stops it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import nats
import psycopg
from nats.aio.msg import Msg

_WRITERS = 8
_SETTLE_SECONDS = 3.0
_INSERT = """
INSERT INTO outbox (aggregate, aggregate_id, kind, payload, fingerprint, tenant)
VALUES (%s, %s, 'order.created', %s, %s, 'acme')
"""
_PAYLOAD = '{"number": 1, "customer": "Zoë Müller", "note": "%s"}' % ("x" * 150)


@dataclass(frozen=True)
class Latency:
    """What came out; times in milliseconds, nearest rank."""

    written: int
    arrived: int
    per_second: float
    p50_ms: float
    p99_ms: float


async def latency(database_url: str, bus_url: str, aggregate: str, rate: int, seconds: float) -> Latency:
    """Write ``rate`` events a second for ``seconds`` and time each to its arrival."""
    committed: dict[str, float] = {}
    arrived: dict[str, float] = {}

    async def arrives(message: Msg) -> None:
        arrived[(message.headers or {}).get("fingerprint", "")] = time.perf_counter()

    client = await nats.connect(bus_url)
    await client.subscribe(f"events.{aggregate}", cb=arrives)
    run, started = time.time_ns(), time.perf_counter() + 0.2

    async def write(writer: int) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            for n in range(int(rate * seconds / _WRITERS)):
                await asyncio.sleep(max(0.0, started + (n * _WRITERS + writer) / rate - time.perf_counter()))
                key = f"acme/{run}/{writer}-{n}"
                await connection.execute(_INSERT, (aggregate, f"{writer}-{n}", _PAYLOAD, key), prepare=True)
                committed[key] = time.perf_counter()

    await asyncio.gather(*(write(writer) for writer in range(_WRITERS)))
    wrote = time.perf_counter() - started
    deadline = time.perf_counter() + 30
    while len(arrived) < len(committed) and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await client.close()
    # A message can arrive before its writer has heard of the commit.
    times = sorted(max(0.0, arrived[key] - at) * 1e3 for key, at in committed.items() if key in arrived)
    half, most = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
    return Latency(len(committed), len(times), len(committed) / wrote, half, most)


async def settle() -> None:
    """Wait until what was started just now is at work."""
    await asyncio.sleep(_SETTLE_SECONDS)
