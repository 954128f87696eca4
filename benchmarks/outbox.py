"""Draining the outbox: the sprint's loop as written, ours, and the limits, on the same table and bus.

    python -m benchmarks.outbox [--events 50000] [--rounds 3]

The limits are what no drain can beat here: a plain COPY of the rows out of the table, and publishing
alone with all acknowledgements awaited. Counted beside events a second: the drain's own processor time,
WAL bytes and dead tuples an event.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import psycopg

from benchmarks.rounds import Measured, save
from runtime.bus import Message, connect, encode_headers
from runtime.database import migrate
from runtime.outbox.worker import Worker
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.events import declare, make_outputs

SPRINT = "the sprint's loop"
OURS = "kilo worker"
COPY = "limit: COPY out of the table"
PUBLISH = "limit: pipelined publish"

_FILL = """
INSERT INTO outbox
    (id, aggregate, aggregate_id, kind, payload, fingerprint, content_digest, tenant, traceparent)
SELECT nextval('outbox_id_seq'), 'order', n::text, 'order.created',
       jsonb_build_object('number', n, 'customer', 'Zoë Müller', 'note', repeat('x', 150)), %s || n, '',
       'acme', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
FROM generate_series(1, %s) n
"""


@dataclass
class Stage:
    """A database and a bus of their own."""

    url: str
    bus_url: str
    fills: int = 0

    def fill(self, count: int) -> None:
        """Empty the table and write ``count`` rows; the trigger's work is not what is measured here."""
        self.fills += 1
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("TRUNCATE outbox")
            connection.execute("ALTER TABLE outbox DISABLE TRIGGER outbox_before_insert")
            connection.execute(_FILL, (f"acme/{self.fills}-", count))
            connection.execute("ALTER TABLE outbox ENABLE TRIGGER outbox_before_insert")
            connection.execute("VACUUM ANALYZE outbox")
            connection.execute("CHECKPOINT")

    def number(self, query: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0


async def sprint_loop(stage: Stage, count: int) -> None:
    """As in the sprint: SELECT 200, publish one by one, one UPDATE and commit a row."""
    client = await nats.connect(stage.bus_url)
    jetstream = client.jetstream()
    async with await psycopg.AsyncConnection.connect(stage.url, autocommit=True) as connection:
        while count > 0:
            query = "SELECT * FROM outbox WHERE dequeued_at IS NULL ORDER BY id ASC LIMIT 200"
            cursor = await connection.execute(query)
            names = [column.name for column in cursor.description or []]
            for row in await cursor.fetchall():
                event: dict[str, Any] = dict(zip(names, row, strict=True))
                body = str(event["payload"]).encode()
                await jetstream.publish("events.order", body, headers={"Nats-Msg-Id": event["fingerprint"]})
                await connection.execute(
                    "UPDATE outbox SET dequeued_at = now() WHERE id = %s", (event["id"],)
                )
                count -= 1
    await client.close()


async def ours(stage: Stage, count: int) -> None:
    drained = await Worker(stage.url, lambda: connect(stage.bus_url)).drain()
    assert drained == count, drained


async def copy_out(stage: Stage, _count: int) -> None:
    async with await psycopg.AsyncConnection.connect(stage.url) as connection:
        query = "COPY (SELECT id, fingerprint, payload FROM outbox ORDER BY id) TO STDOUT (FORMAT binary)"
        async with connection.cursor() as cursor, cursor.copy(query) as rows:
            async for _ in rows:
                pass


async def publish_only(stage: Stage, count: int) -> None:
    client = await connect(stage.bus_url)
    payload = b'{"number": 1, "customer": "Zo", "note": "%b"}' % (b"x" * 150)
    for start in range(0, count, 2000):
        part = [
            Message(
                "events.order",
                str(n),
                encode_headers({"Nats-Msg-Id": f"{stage.fills}/{n}", "kind": "k"}),
                payload,
            )
            for n in range(start, min(start + 2000, count))
        ]
        receipts = await client.publish(part)
        assert all(receipt.position for receipt in receipts)
    await client.close()


def measure(stage: Stage, run: Callable[[Stage, int], Awaitable[None]], count: int, into: Measured) -> None:
    stage.fill(count)
    wal, dead = stage.number("SELECT pg_current_wal_lsn() - '0/0'"), _dead(stage)
    started, processor = time.perf_counter(), time.process_time()
    asyncio.run(_run(run, stage, count))
    seconds = time.perf_counter() - started
    into.per_second.append(count / seconds)
    into.counted["processor_us_an_event"] = round((time.process_time() - processor) / count * 1e6, 2)
    into.counted["wal_bytes_an_event"] = round(
        (stage.number("SELECT pg_current_wal_lsn() - '0/0'") - wal) / count
    )
    time.sleep(1.5)  # PostgreSQL's statistics are behind by up to a second
    into.counted["dead_tuples_an_event"] = round((_dead(stage) - dead) / count, 2)


def _dead(stage: Stage) -> int:
    return stage.number(
        "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname ~ '^outbox_2'"
    )


async def _run(run: Callable[[Stage, int], Awaitable[None]], stage: Stage, count: int) -> None:
    await run(stage, count)


def main() -> None:
    """Run the rounds and save what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=50_000, help="rows to drain a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sides: dict[str, tuple[Callable[[Stage, int], Awaitable[None]], int]] = {
        SPRINT: (sprint_loop, max(200, options.events // 100)),
        OURS: (ours, options.events),
        COPY: (copy_out, options.events),
        PUBLISH: (publish_only, options.events),
    }
    results = {name: Measured(name) for name in sides}
    with tempfile.TemporaryDirectory(prefix="kilo-bench-") as directory:
        postgres, bus = PostgresServer(Path(directory) / "postgres"), NatsServer(Path(directory) / "nats")
        os.chmod(directory, 0o755)
        postgres.start()
        bus.start()
        try:
            migrate(postgres.url)
            asyncio.run(declare(bus.url, make_outputs(bus.url)))
            stage = Stage(postgres.url, bus.url)
            for _ in range(options.rounds):
                for name, (run, count) in sides.items():
                    measure(stage, run, count, results[name])
        finally:
            bus.stop()
            postgres.stop()
    save(
        "outbox",
        {name: {"per_second": each.per_second, **each.counted} for name, each in results.items()},
        _text(results),
    )


def _text(results: dict[str, Measured]) -> str:
    base = results[SPRINT].median
    lines = [
        "### Draining the outbox",
        "",
        "| what | events/s | times the sprint's loop | own CPU, µs an event | WAL bytes an event"
        " | dead tuples an event |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.name} | {each.median:,.0f} | {each.median / base:.1f}"
        f" | {each.counted['processor_us_an_event']}"
        f" | {each.counted['wal_bytes_an_event']:,} | {each.counted['dead_tuples_an_event']} |"
        for each in results.values()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
