"""What drains the outbox in the benchmark: the candidates, and the limits that none can beat here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import nats
import psycopg
from faststream_outbox import OutboxBroker, make_outbox_table
from nats.js import JetStreamContext
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from benchmarks.events_stage import Place, Stage, Turns, peak_megabytes, processor_seconds
from kilo.bus import Bus, Message, Receipt, connect, encode_headers
from kilo.cdc.properties import ConnectorSettings, render_properties
from kilo.cdc.publication import apply_capture
from kilo.outbox.worker import Worker
from sandbox.servers.debezium import DebeziumServer

FASTSTREAM_TABLE = "faststream_outbox"
_WINDOW = 4000


async def sprint_loop(place: Place, count: int) -> int:
    """As in the sprint: SELECT 200, publish one by one, one UPDATE and commit a row."""
    client = await nats.connect(place.bus_url)
    jetstream, left = client.jetstream(), count
    async with await psycopg.AsyncConnection.connect(place.database_url, autocommit=True) as connection:
        while left > 0:
            query = "SELECT * FROM outbox WHERE dequeued_at IS NULL ORDER BY id ASC LIMIT 200"
            cursor = await connection.execute(query)
            names = [column.name for column in cursor.description or []]
            for row in await cursor.fetchall():
                event: dict[str, Any] = dict(zip(names, row, strict=True))
                body = json.dumps(event["payload"]).encode()
                headers = {"Nats-Msg-Id": event["fingerprint"]}
                if await jetstream.publish(f"events.{event['aggregate']}", body, headers=headers):
                    await connection.execute(
                        "UPDATE outbox SET dequeued_at = now() WHERE id = %s", (event["id"],)
                    )
                left -= 1
    await client.close()
    return count


class _Counting:
    """The bus, with a count of how often somebody waited for it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.waits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, messages: list[Message], deadline_seconds: float = 10) -> list[Receipt]:
        self.waits += 1
        return await self._bus.publish(messages, deadline_seconds)


async def kilo_worker(place: Place, count: int) -> int:
    """The platform's worker until nothing waits, or until ``count`` rows are through when told so."""
    buses: list[_Counting] = []

    async def connect_bus() -> Any:
        buses.append(_Counting(await connect(place.bus_url)))
        return buses[-1]

    worker = Worker(place.database_url, connect_bus)
    if place.options.get("part"):
        stopping = asyncio.Event()
        running = asyncio.ensure_future(worker.run(stopping))
        while worker.published < count:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.005)
        stopping.set()
        await running
    else:
        drained = await worker.drain()
        assert drained == count, f"{drained} of {count}"
    return sum(each.waits for each in buses)


async def kilo_worker_running(place: Place, _count: int) -> int:
    """The platform's worker until it is ended, for latencies."""
    await Worker(place.database_url, lambda: connect(place.bus_url)).run(asyncio.Event())
    return 0


async def faststream_outbox(place: Place, count: int) -> int:
    """faststream-outbox as a relay to the same stream, batched as far as it goes, 32 workers.

    It has a table of its own and keeps no order per aggregate; a row is deleted where ours is marked.
    """
    warnings.simplefilter("ignore")
    client = await nats.connect(place.bus_url)
    jetstream, left, done = client.jetstream(), count, asyncio.Event()
    url = place.database_url.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=40)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData(), FASTSTREAM_TABLE), logger=None)

    async def relay(body: dict[str, Any]) -> None:
        nonlocal left
        headers = {"Nats-Msg-Id": body["fingerprint"]}
        await jetstream.publish("events.order", json.dumps(body["payload"]).encode(), headers=headers)
        left -= 1
        if left == 0:
            done.set()

    broker.subscriber(
        "events",
        max_workers=32,
        fetch_batch_size=1000,
        min_fetch_interval=0.01,
        terminal_flush_batch_size=1000,
    )(relay)
    async with broker:
        await broker.start()
        await done.wait()
    await engine.dispose()
    await client.close()
    return count


def fill_faststream(stage: Stage) -> None:
    """Copy what waits in the outbox into the table that faststream-outbox reads."""
    table = make_outbox_table(MetaData(), FASTSTREAM_TABLE)
    dialect = postgresql.dialect()
    stage.sql(
        f"DROP TABLE IF EXISTS {FASTSTREAM_TABLE}",
        str(CreateTable(table).compile(dialect=dialect)),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes),
        f"INSERT INTO {FASTSTREAM_TABLE} (queue, payload, headers) SELECT 'events', convert_to("
        "jsonb_build_object('fingerprint', fingerprint, 'payload', payload)::text, 'UTF8'),"
        ' \'{"content-type": "application/json"}\' FROM outbox ORDER BY id',
        f"ANALYZE {FASTSTREAM_TABLE}",
    )


async def copy_out(place: Place, _count: int) -> int:
    """The limit of reading: a plain COPY of the rows."""
    async with await psycopg.AsyncConnection.connect(place.database_url) as connection:
        query = "COPY (SELECT id, fingerprint, payload FROM outbox ORDER BY id) TO STDOUT (FORMAT binary)"
        async with connection.cursor() as cursor, cursor.copy(query) as rows:
            async for _ in rows:
                pass
    return 0


async def publish_only(place: Place, count: int) -> int:
    """The limit of publishing: ready frames on a bare socket, acknowledgements counted and not looked at."""
    url = urlsplit(place.bus_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1 << 20)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.limit 1\r\n')
    payload = b'{"number": 1, "customer": "Zo", "note": "%b"}' % (b"x" * 150)
    run, waits = time.monotonic_ns(), 0
    for start in range(0, count, _WINDOW):
        some = range(start, min(start + _WINDOW, count))
        writer.write(b"".join([_frame(f"{run}/{n}", payload) for n in some]))
        waits += 1
        missing, rest = len(some), b""
        while missing:
            data = rest + await reader.read(1 << 18)
            missing -= data.count(b'"seq":')
            rest = data[-5:]
    writer.close()
    return waits


def _frame(message_id: str, payload: bytes) -> bytes:
    headers = b"NATS/1.0\r\n" + encode_headers({"Nats-Msg-Id": message_id, "kind": "order.created"}) + b"\r\n"
    sizes = (len(headers), len(headers) + len(payload), headers, payload)
    return b"HPUB events.order _INBOX.limit %d %d\r\n%b%b\r\n" % sizes


class Debezium:
    """Debezium Server as the platform configures it, on a slot of its own."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        url = urlsplit(stage.postgres.url)
        self._stage = stage
        self._server = DebeziumServer(
            directory,
            render_properties(
                ConnectorSettings(stage.outputs.bus, stage.outputs.outbox, str(directory / "offsets.dat"))
            ),
            {
                "DATABASE_HOST": str(url.hostname),
                "DATABASE_PORT": str(url.port),
                "DATABASE_NAME": "postgres",
                "DATABASE_USER": "postgres",
                "DATABASE_PASSWORD": str(url.password),
            },
        )
        self._server.start()

    @property
    def pid(self) -> int:
        """Of the Java process."""
        return self._server.pid or 0

    def turn(self, turns: Turns, count: int) -> None:
        """Let it stream ``count`` rows that were written while it stood still, and note what it cost."""
        os.kill(self.pid, signal.SIGSTOP)
        self._stage.fill(count, "cdc")
        with self._stage.counted(turns, count) as counted:
            before = processor_seconds(self.pid)
            counted.update(asyncio.run(self._stream(count)))
            counted["own_us"] = (processor_seconds(self.pid) - before) / count * 1e6
            counted["per_second"] = count / counted.pop("seconds")
            counted["megabytes"] = peak_megabytes(self.pid)

    async def _stream(self, count: int) -> dict[str, float]:
        client = await nats.connect(self._stage.bus.url)
        jetstream = client.jetstream()
        goal = await _last(jetstream) + count
        started = time.perf_counter()
        os.kill(self.pid, signal.SIGCONT)
        while await _last(jetstream) < goal:  # noqa: ASYNC110  the server tells only who asks
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - started
        await client.close()
        return {"seconds": seconds}

    def close(self) -> None:
        """End it, and take its slot away: it would hold WAL and decode what others write."""
        self._server.stop()
        slot = self._stage.outputs.outbox.replication_slot
        for _ in range(100):
            try:
                self._stage.sql(f"SELECT pg_drop_replication_slot('{slot}')")
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)
            else:
                return


@contextmanager
def debezium(stage: Stage) -> Generator[Debezium]:
    """Debezium Server, started."""
    with psycopg.connect(stage.postgres.url, autocommit=True) as connection:
        apply_capture(connection, stage.outputs.outbox)
    with TemporaryDirectory(prefix="kilo-bench-debezium-") as directory:
        made = Debezium(stage, Path(directory))
        try:
            yield made
        finally:
            made.close()


async def _last(jetstream: JetStreamContext) -> int:
    return (await jetstream.stream_info("EVENTS")).state.last_seq
