"""Consuming: the platform's consumer beside a transaction an event, and the limits.

    make bench NAME=consumer
    make bench NAME=consumer ARGS="--events 20000 --rounds 1"

Every event is written to the inbox and has its handler's effect, a row, in one transaction. The limits are
what no such consumer can beat here: the same rows in one transaction a batch without a bus, and fetching
the stream over a bare socket without a database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import nats
from nats.js.api import AckPolicy, ConsumerConfig
from psycopg import AsyncConnection

from benchmarks.events_stage import Candidate, Place, Stage, Turns, stage
from benchmarks.rounds import save
from kilo.bus import Message, connect, encode_headers, event_headers
from kilo.consumer import Connections, Consumer, Event, Statements
from tests.runtime.consumer.support import Plain

NAIVE = "a transaction an event"
OURS, WAITING = "kilo consumer, writes", "kilo consumer, handler that waits"
INSERTS, FETCH = "limit: plain inserts, a transaction a batch", "limit: plain fetch"
_BATCH = 500
_EFFECT = "INSERT INTO effects (fingerprint, aggregate_id, body) VALUES (%s, %s, %s)"
_INBOX = (
    "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
    " VALUES (%s, %s, %s, %s, 'worker') ON CONFLICT DO NOTHING"
)


async def _run(place: Place, consumer: Consumer, stopping: asyncio.Event) -> int:
    connections = Connections(place.database_url, lambda: connect(place.bus_url), "EVENTS", Plain())
    await consumer.run(connections, stopping)
    return 0


async def kilo_writes(place: Place, count: int) -> int:
    """The platform's consumer with a handler that says what to write."""
    consumer, left, stopping = Consumer("benchmark", batch=_BATCH), count, asyncio.Event()

    @consumer.writes("*")
    def effect(event: Event, statements: Statements) -> None:  # pyright: ignore[reportUnusedFunction]
        nonlocal left
        statements.add(_EFFECT, (event.fingerprint, event.aggregate_id, event.payload["note"]))
        left -= 1
        if left == 0:
            stopping.set()

    return await _run(place, consumer, stopping)


async def kilo_handles(place: Place, count: int) -> int:
    """The platform's consumer with a handler that waits for its statement."""
    consumer, left, stopping = Consumer("benchmark", batch=_BATCH), count, asyncio.Event()

    @consumer.on("*")
    async def effect(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        nonlocal left
        values = (event.fingerprint, event.aggregate_id, event.payload["note"])
        await connection.execute(_EFFECT, values, prepare=True)
        left -= 1
        if left == 0:
            stopping.set()

    return await _run(place, consumer, stopping)


async def naive(place: Place, count: int) -> int:
    """What one writes first: fetch, and a transaction with inbox and effect for each event."""
    client = await nats.connect(place.bus_url)
    jetstream = client.jetstream()
    subscription = await jetstream.pull_subscribe("events.>", stream="EVENTS")
    left = count
    async with await AsyncConnection.connect(place.database_url) as connection:
        while left:
            for message in await subscription.fetch(min(left, _BATCH)):
                headers, body = message.headers or {}, json.loads(message.data)
                cursor = await connection.execute(
                    _INBOX, ("naive", headers["fingerprint"], headers["created-at"], headers["tenant"])
                )
                if cursor.rowcount:
                    values = (headers["fingerprint"], headers["aggregate-id"], body["note"])
                    await connection.execute(_EFFECT, values)
                await connection.commit()
                await message.ack()
                left -= 1
    await client.close()
    return count


async def plain_inserts(place: Place, count: int) -> int:
    """The limit of writing: inbox and effects by two statements and a commit a batch."""
    async with await AsyncConnection.connect(place.database_url) as connection:
        for start in range(0, count, _BATCH):
            keys = [f"acme/plain-{n}" for n in range(start, min(start + _BATCH, count))]
            created = datetime.now(UTC)
            await connection.execute(
                "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
                " SELECT 'plain', key, %s, 'acme', 'worker' FROM unnest(%s::text[]) AS key",
                (created, keys),
            )
            await connection.execute(
                "INSERT INTO effects (fingerprint, aggregate_id, body)"
                " SELECT key, key, repeat('x', 150) FROM unnest(%s::text[]) AS key",
                (keys,),
            )
            await connection.commit()
    return 0


async def plain_fetch(place: Place, count: int) -> int:
    """The limit of reading: batches over a bare socket, messages counted and not looked at."""
    client = await nats.connect(place.bus_url)
    made = await client.jetstream().add_consumer("EVENTS", ConsumerConfig(ack_policy=AckPolicy.NONE))
    await client.close()
    url = urlsplit(place.bus_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1 << 20)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB _INBOX.limit 1\r\n')
    waits = 0
    for start in range(0, count, _BATCH):
        missing, rest = min(_BATCH, count - start), b""
        ask = json.dumps({"batch": missing, "expires": 30_000_000_000}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{made.name}".encode()
        writer.write(b"PUB %b _INBOX.limit %d\r\n%b\r\n" % (subject, len(ask), ask))
        waits += 1
        while missing > 0:
            data = rest + await reader.read(1 << 18)
            missing -= data.count(b"HMSG ")
            rest = data[-4:]
    writer.close()
    return waits


_CANDIDATES: dict[str, Candidate] = {
    NAIVE: naive,
    WAITING: kilo_handles,
    OURS: kilo_writes,
    INSERTS: plain_inserts,
    FETCH: plain_fetch,
}


async def _publish(made: Stage, count: int) -> None:
    """Fill the stream with ``count`` events of an aggregate each."""
    bus = await connect(made.bus.url)
    payload = b'{"number": 1, "customer": "Zo", "note": "%b"}' % (b"x" * 150)
    created = datetime.now(UTC)
    for start in range(0, count, 2000):
        part = [
            Message("events.order", str(n), encode_headers(_headers(n, created)), payload)
            for n in range(start, min(start + 2000, count))
        ]
        assert all(receipt.position for receipt in await bus.publish(part))
    await bus.close()


def _headers(n: int, created: datetime) -> dict[str, str]:
    return event_headers(
        message_id=f"acme/{n}",
        fingerprint=f"acme/{n}",
        kind="order.created",
        tenant="acme",
        aggregate_id=str(n),
        created_at=created,
        publisher="worker",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def turn(made: Stage, turns: Turns, count: int) -> None:
    """One candidate on an empty inbox; whoever has effects has one of each event."""
    made.sql(
        "TRUNCATE inbox, consumer_positions, effects",
        "CHECKPOINT",
    )
    made.turn(turns, _CANDIDATES[turns.name], count)
    if turns.name != FETCH:
        for table in ("effects", "inbox"):
            found = made.number(f"SELECT count(DISTINCT fingerprint) FROM {table}")
            assert found == count, f"{turns.name}: {found} of {count} in {table}"


def main() -> None:
    """Run the rounds and save what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=50_000, help="events to consume a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = {name: Turns(name) for name in _CANDIDATES}
    with stage() as made:
        made.sql("CREATE TABLE effects (id bigserial, fingerprint text, aggregate_id text, body text)")
        asyncio.run(_publish(made, options.events))
        for number in range(1, options.rounds + 1):
            for name, turns in results.items():
                turn(made, turns, max(200, options.events // 50) if name == NAIVE else options.events)
            rates = ", ".join(
                f"{name} {each.rounds[-1]['per_second']:,.0f}/s" for name, each in results.items()
            )
            print(f"round {number} of {options.rounds}: {rates}", flush=True)
    ours = results[OURS].median("per_second")
    content = {
        "ratios": {
            "kilo_times_transaction_an_event": round(ours / results[NAIVE].median("per_second"), 1),
            "kilo_times_waiting_handler": round(ours / results[WAITING].median("per_second"), 2),
            "kilo_of_insert_limit": round(ours / results[INSERTS].median("per_second"), 2),
            "kilo_of_fetch_limit": round(ours / results[FETCH].median("per_second"), 2),
        },
        "candidates": {name: {**each.medians, "rounds": each.rounds} for name, each in results.items()},
    }
    save("consumer", content, _text(list(results.values())))


def _text(turns: Sequence[Turns]) -> str:
    lines = [
        "### Consuming, inbox and handler in one transaction",
        "",
        "CPU in ms a thousand events: own, PostgreSQL's, NATS's. Statements and WAL bytes an event.",
        "",
        "| what | events/s | CPU | own | PG | NATS | peak MB | statements | WAL |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in turns:
        value = each.medians
        cells = [
            f"{value['per_second']:,.0f}",
            *(
                f"{value[part]:,.1f}"
                for part in ("processor_ms_a_thousand", "own_us", "postgres_us", "bus_us")
            ),
            f"{value['megabytes']:,.0f}",
            f"{value['statements']:.3f}",
            f"{value['wal_bytes']:,.0f}",
        ]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
