"""A stage for the benchmarks of events: PostgreSQL and NATS of their own, and what a turn on them costs.

A candidate runs in a process of its own, so that its processor time and its memory are its own. Beside
them stands what the servers pay for it: processor time of all of PostgreSQL's and of NATS's processes,
WAL, row versions left dead, statements.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from kilo.contract import StackOutputs
from kilo.database import migrate
from kilo.service import spare_garbage_collection
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from tests.events import declare, make_outputs

_TICK = os.sysconf("SC_CLK_TCK")
_START_SECONDS, _TURN_SECONDS = 60, 900

_FILL = """
INSERT INTO outbox (id, aggregate, aggregate_id, kind, payload, fingerprint, content_digest, tenant,
                    traceparent, publisher, slot, payload_bytes, message_id, ordering_key)
SELECT nextval('outbox_id_seq'), %(aggregate)s, (n / %(same)s)::text, 'order.created', payload,
       'acme/' || %(fill)s::text || '-' || n, '', 'acme',
       '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', %(publisher)s,
       (n / %(same)s) & 63, octet_length(payload::text),
       'acme/acme/' || %(fill)s::text || '-' || n, 'acme/' || %(aggregate)s || '/' || (n / %(same)s)
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n,
     jsonb_build_object('number', n, 'customer', 'Zoë Müller', 'note', repeat('x', 150)) payload
"""

Candidate = Callable[["Place", int], Awaitable[int]]
"""Does the work for so many events; returns for how many answers of the bus it waited."""


@dataclass(frozen=True)
class Place:
    """Where a candidate works; it can be handed to another process."""

    database_url: str
    bus_url: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Turns:
    """What the turns of one candidate cost; the median of its rounds is what counts."""

    name: str
    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def median(self, what: str) -> float:
        """The median over the rounds of ``what``."""
        return statistics.median(each[what] for each in self.rounds)

    @property
    def medians(self) -> dict[str, float]:
        """The median of everything that was counted."""
        return {what: self.median(what) for what in self.rounds[0]} if self.rounds else {}


class Stage:
    """Servers of their own, and the counters around a turn."""

    def __init__(self, postgres: PostgresServer, bus: NatsServer, outputs: StackOutputs) -> None:
        self.postgres, self.bus, self.outputs = postgres, bus, outputs
        self.fills = 0

    @property
    def place(self) -> Place:
        """Where candidates work."""
        return Place(self.postgres.url, self.bus.url)

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            for each in statements:
                connection.execute(each.encode())

    def number(self, query: str) -> int:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0

    def fill(self, count: int, publisher: str = "worker", same: int = 1) -> None:
        """Empty the outbox and write ``count`` rows, ``same`` of them for each aggregate.

        The table's own trigger is off meanwhile: writing is not what is measured. The checkpoint comes
        before, as rows are drained long before the next one.
        """
        self.fills += 1
        self.sql("TRUNCATE outbox", "CHECKPOINT", "ALTER TABLE outbox DISABLE TRIGGER outbox_before_insert")
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            for first in range(1, count + 1, 1_000_000):
                values = {
                    "aggregate": "payment" if publisher == "cdc" else "order",
                    "publisher": publisher,
                    "fill": self.fills,
                    "same": same,
                    "first": first,
                    "last": min(first + 999_999, count),
                }
                connection.execute(_FILL, values)
        self.sql("ALTER TABLE outbox ENABLE TRIGGER outbox_before_insert", "ANALYZE outbox")

    def turn(
        self, turns: Turns, candidate: Candidate, count: int, options: dict[str, Any] | None = None
    ) -> None:
        """Run ``candidate`` for ``count`` events in a process of its own and note what it cost."""
        place = Place(self.postgres.url, self.bus.url, options or {})
        with _Process(candidate, place, count) as process, self.counted(turns, count) as counted:
            counted.update(process.run())
            counted["per_second"] = count / counted.pop("seconds")

    @contextmanager
    def running(self, candidate: Candidate) -> Generator[None]:
        """Let ``candidate`` work beside the caller."""
        with _Process(candidate, self.place, 1) as process:
            process.begin()
            yield

    @contextmanager
    def counted(self, turns: Turns, count: int) -> Generator[dict[str, float]]:
        """Count what the servers pay meanwhile; the candidate's own figures are the caller's to add."""
        before = self._counters()
        counted: dict[str, float] = {}
        yield counted
        after = self._counters()
        rises = {name: (after[name] - before[name]) / count for name in before}
        counted["postgres_us"], counted["bus_us"] = rises["postgres"] * 1e6, rises["bus"] * 1e6
        counted["processor_ms_a_thousand"] = (
            counted["own_us"] + counted["postgres_us"] + counted["bus_us"]
        )  # microseconds an event are milliseconds a thousand
        counted["wal_bytes"] = rises["wal"]
        counted["dead_tuples"] = rises["dead"]
        counted["statements"] = rises["statements"]
        counted["bus_waits"] = counted.pop("waits", 0) / count
        turns.rounds.append(counted)

    def _counters(self) -> dict[str, float]:
        time.sleep(1.2)  # PostgreSQL's statistics are behind by up to a second
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8,"
                " (SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 FROM pg_stat_user_tables),"
                " (SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements)"
            ).fetchone()
        assert row is not None
        return {
            "wal": row[0],
            "dead": row[1],
            "statements": row[2],
            "postgres": processor_seconds(self.postgres.pid or 0),
            "bus": processor_seconds(self.bus.pid or 0),
        }


@contextmanager
def stage() -> Generator[Stage]:
    """Start the servers, with the platform's tables and streams; everything is gone afterwards."""
    with TemporaryDirectory(prefix="kilo-bench-") as directory:
        os.chmod(directory, 0o755)  # PostgreSQL runs as another account
        settings = {
            "wal_level": "logical",
            "shared_preload_libraries": "pg_stat_statements",
            "max_wal_size": "16GB",
            "checkpoint_timeout": "1h",
        }
        postgres = PostgresServer(Path(directory) / "postgres", settings=settings)
        bus = NatsServer(Path(directory) / "nats")
        outputs = make_outputs(bus.url)
        try:
            postgres.start()
            bus.start()
            migrate(postgres.url)
            asyncio.run(declare(bus.url, outputs))
            made = Stage(postgres, bus, outputs)
            made.sql("CREATE EXTENSION pg_stat_statements")
            yield made
        finally:
            bus.stop()
            postgres.stop()


class _Process:
    """A candidate in a process of its own, ready before the clock starts."""

    def __init__(self, candidate: Candidate, place: Place, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        name = f"{candidate.__module__}:{candidate.__name__}"  # pyright: ignore[reportFunctionMemberAccess]
        self._process = context.Process(target=_candidate, args=(theirs, name, place, count), daemon=True)

    def __enter__(self) -> _Process:
        self._process.start()
        self._answer(_START_SECONDS)
        return self

    def run(self) -> dict[str, float]:
        """Let it do its work; seconds, processor time and memory are its own account."""
        self.begin()
        return self._answer(_TURN_SECONDS)

    def begin(self) -> None:
        """Start the clock."""
        self._mine.send("go")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def _answer(self, seconds: float) -> Any:
        if not self._mine.poll(seconds):
            msg = f"no answer within {seconds} s"
            raise RuntimeError(msg)
        return self._mine.recv()


def _candidate(connection: Connection, name: str, place: Place, count: int) -> None:
    module, _, function = name.partition(":")
    candidate: Candidate = getattr(importlib.import_module(module), function)
    gc.collect()
    spare_garbage_collection()  # for all alike, as the platform's own processes do
    connection.send({})
    connection.recv()
    started, processor = time.perf_counter(), time.process_time()
    waits = asyncio.run(_awaited(candidate, place, count))
    connection.send(
        {
            "seconds": time.perf_counter() - started,
            "own_us": (time.process_time() - processor) / count * 1e6,
            "waits": waits,
            "megabytes": peak_megabytes(os.getpid()),
        }
    )
    connection.recv()  # until it is ended


async def _awaited(candidate: Candidate, place: Place, count: int) -> int:
    return await candidate(place, count)


def processor_seconds(pid: int) -> float:
    """Processor time of a process, of its children that ended and of those that run."""
    total = sum(_times(pid))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(int(entry.name)) == pid:
            total += sum(_times(int(entry.name))[:2])
    return total


def peak_megabytes(pid: int) -> float:
    """The high-water mark of a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    found = _stat(pid)
    return int(found[1]) if found else 0


def _times(pid: int) -> list[float]:
    """User and system time, of itself and of the children that it has waited for."""
    return [int(each) / _TICK for each in _stat(pid)[11:15]]
