"""Taking events over HTTP: the whole path, and ingest beside a bare handler and pgbench.

    make bench NAME=ingest
    make bench NAME=ingest ARGS="--seconds 2 --rounds 1"

First ingest alone, without a gateway, beside a bare Starlette handler with the same two INSERTs in one
transaction and pgbench doing them, in turns. Then the whole path runs, gateway, ingest, worker, Debezium,
NATS and consumer, and what an acknowledged event costs each of them is counted until it had its effect.
Every fourth event goes by change capture. What the load itself costs is nobody's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from benchmarks.events_stage import Turns, processor_seconds
from benchmarks.ingest_bare import bare_handler, pgbench
from benchmarks.ingest_load import TENANTS, Answered, Load, send
from benchmarks.rounds import save
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.postgres import PostgresServer
from kilo.traffic.settings import GatewaySettings, Upstream
from sandbox.servers.moto import MotoServer
from tests.events import Platform, make_platform
from tests.runtime.traffic.support import Gateway, make_tenant

CONNECTIONS = (1, 16, 64)
BATCH = 500
_SETTLE_SECONDS = 60.0


class EventPath:
    """The whole path, and the counters around a load."""

    def __init__(self, platform: Platform, gateway: Gateway) -> None:
        self.platform, self.gateway = platform, gateway
        self.runs = 0

    def load(self, url: str, connections: int, seconds: float, **more: Any) -> Answered:
        """Send a load whose keys are new."""
        self.runs += 1
        return send(Load(url, f"run{os.getpid()}-{self.runs}", connections, seconds, **more))

    def counted(self, turns: Turns, connections: int, seconds: float, **more: Any) -> None:
        """Send a load through the gateway and note what the path paid until every event had its effect."""
        before = self._counters()
        answered = self.load(self.gateway.url, connections, seconds, **more)
        self.settle()
        after = self._counters()
        rises = {name: (after[name] - before[name]) / answered.events for name in before}
        counted = {
            "per_second": answered.per_second,
            "p50_ms": answered.p50_ms,
            "p99_ms": answered.p99_ms,
            "repeated": answered.repeated,
            "wal_bytes": rises.pop("wal"),
            "statements": rises.pop("statements"),
            "round_trips_of_ingest": rises.pop("ingest_statements"),
            **{f"{name}_ms": rise * 1e3 for name, rise in rises.items()},
        }
        counted["path_ms"] = sum(rises.values()) * 1e3
        turns.rounds.append(counted)

    def settle(self) -> None:
        """Wait until every event is dispatched and had its effect."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        query = "SELECT (SELECT count(*) FROM events) - (SELECT count(*) FROM inbox)"
        while self.platform.sql(query)[0][0] > 0 and time.monotonic() < deadline:
            time.sleep(0.1)

    def _counters(self) -> dict[str, float]:
        time.sleep(1.2)  # PostgreSQL's statistics are behind by up to a second
        platform = self.platform
        row = platform.sql(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8, coalesce(sum(calls), 0)::float8,"
            " coalesce(sum(calls) FILTER (WHERE userid = 'kilo_ingest'::regrole AND toplevel), 0)::float8"
            " FROM pg_stat_statements"
        )[0]
        pids = {name: process.pid for name, process in platform.processes.items()}
        pids |= {"postgres": platform.postgres.pid, "nats": platform.bus.pid}
        pids["debezium"] = platform.debezium.pid if platform.debezium else None
        pids["gateway"] = self.gateway.pid
        return {
            "wal": row[0],
            "statements": row[1],
            "ingest_statements": row[2],
            **{name: processor_seconds(pid or 0) for name, pid in pids.items()},
        }


@contextmanager
def whole_path(directory: Path) -> Generator[EventPath]:
    """Servers and processes; only ingest runs at first."""
    directory.chmod(0o755)  # PostgreSQL runs as another account
    settings = {
        "shared_preload_libraries": "pg_stat_statements",
        "pg_stat_statements.track": "top",
        "max_wal_size": "16GB",
        "checkpoint_timeout": "1h",
    }
    postgres = PostgresServer(directory / "postgres", settings=settings)
    bus, moto = NatsServer(directory / "nats"), MotoServer(directory / "moto")
    try:
        for server in (postgres, bus, moto):
            server.start()
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE kilo")
        with make_platform(directory, postgres, bus, moto, "kilo") as platform:
            platform.sql("CREATE EXTENSION pg_stat_statements")
            platform.start_ingest()
            ingest_port = int(platform.ingest_url.rpartition(":")[2])
            gateway = Gateway(
                directory / "gateway" / "mount",
                GatewaySettings(
                    stable=Upstream(host="127.0.0.1", port=ingest_port),
                    listener_port=free_port(),
                    operations_port=free_port(),
                    drain_port=free_port(),
                ),
            )
            gateway.directory.mkdir(parents=True)
            gateway.start([make_tenant(tenant) for tenant in TENANTS])
            try:
                yield EventPath(platform, gateway)
            finally:
                gateway.stop()
    finally:
        for server in (moto, bus, postgres):
            server.stop()


def beside(path: EventPath, seconds: float, rounds: int, directory: Path) -> dict[str, Turns]:
    """Ingest, the bare handler and pgbench in turns, without gateway, worker and the rest."""
    platform = path.platform
    results: dict[str, Turns] = {}

    def note(name: str, **counted: float) -> None:
        results.setdefault(name, Turns(name)).rounds.append(counted)

    role = f"postgresql://kilo_ingest:kilo_ingest-password@127.0.0.1:{platform.database_port}/kilo"
    with bare_handler(role) as (bare, _):
        sides = {"ingest": platform.ingest_url, "bare handler": bare}
        for url in sides.values():
            path.load(url, 16, 1)  # statements prepared, pools filled
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name, url in sides.items():
                    found = path.load(url, connections, seconds)
                    note(
                        f"{name}, {connections}",
                        per_second=found.per_second,
                        p50_ms=found.p50_ms,
                        p99_ms=found.p99_ms,
                    )
            found = path.load(platform.ingest_url, 4, seconds, batch=BATCH)
            note(
                f"ingest, batches of {BATCH}, 4",
                per_second=found.per_second,
                p50_ms=found.p50_ms,
                p99_ms=found.p99_ms,
            )
            rate = pgbench(platform.postgres, "kilo", 16, max(1, round(seconds)), directory)
            note("limit: pgbench, 16", per_second=rate, p50_ms=16e3 / rate, p99_ms=0.0)
    platform.sql("TRUNCATE outbox, events")
    return results


def main() -> None:
    """Run the rounds and save what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="kilo-bench-") as name, whole_path(Path(name)) as path:
        alone = beside(path, options.seconds, options.rounds, Path(name))
        platform = path.platform
        platform.start_worker()
        platform.start_consumer()
        platform.start_debezium()
        through = {f"path, {each}": Turns(f"path, {each}") for each in CONNECTIONS}
        through[f"path, batches of {BATCH}, 4"] = Turns(f"path, batches of {BATCH}, 4")
        through["path, half of the maximum"] = Turns("path, half of the maximum")
        path.load(path.gateway.url, 16, 1)
        path.settle()
        for _ in range(options.rounds):
            for connections in CONNECTIONS:
                path.counted(through[f"path, {connections}"], connections, options.seconds)
            path.counted(through[f"path, batches of {BATCH}, 4"], 4, options.seconds, batch=BATCH)
            most = max(through[f"path, {each}"].rounds[-1]["per_second"] for each in CONNECTIONS)
            path.counted(through["path, half of the maximum"], 64, options.seconds, per_second=most / 2)
    rate = {name: turns.median("per_second") for name, turns in {**alone, **through}.items()}
    content = {
        "ratios": {
            **{
                f"ingest_of_bare_handler_{each}": round(
                    rate[f"ingest, {each}"] / rate[f"bare handler, {each}"], 2
                )
                for each in CONNECTIONS
            },
            "ingest_of_pgbench_16": round(rate["ingest, 16"] / rate["limit: pgbench, 16"], 2),
            "batch_times_single": round(
                rate[f"ingest, batches of {BATCH}, 4"] / max(rate[f"ingest, {each}"] for each in CONNECTIONS),
                1,
            ),
            "path_ms_an_event_16": round(through["path, 16"].median("path_ms"), 2),
            "p99_ms_at_half_of_the_maximum": round(through["path, half of the maximum"].median("p99_ms"), 1),
        },
        "beside": {name: {**each.medians, "rounds": each.rounds} for name, each in alone.items()},
        "path": {name: {**each.medians, "rounds": each.rounds} for name, each in through.items()},
    }
    save("ingest", content, _text(list(alone.values()), list(through.values())))


def _text(alone: Sequence[Turns], through: Sequence[Turns]) -> str:
    lines = ["### Taking events, ingest alone", "", "| what, connections | events/s | p50 ms | p99 ms |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for each in alone:
        value = each.medians
        lines.append(
            f"| {each.name} | {value['per_second']:,.0f} | {value['p50_ms']:.1f} | {value['p99_ms']:.1f} |"
        )
    parts = ("gateway", "ingest", "postgres", "worker", "debezium", "nats", "consumer")
    lines += [
        "",
        "### The whole path, processor milliseconds an event",
        "",
        f"| what, connections | events/s | p50 ms | p99 ms | ms | {' | '.join(parts)} | WAL | statements"
        " | ingest's |",
        f"| --- | {'---: | ' * (len(parts) + 7)}",
    ]
    for each in through:
        value = each.medians
        cells = [
            f"{value['per_second']:,.0f}",
            f"{value['p50_ms']:.1f}",
            f"{value['p99_ms']:.1f}",
            *(f"{value[f'{part}_ms']:.2f}" for part in ("path", *parts)),
            f"{value['wal_bytes']:,.0f}",
            f"{value['statements']:.2f}",
            f"{value['round_trips_of_ingest']:.2f}",
        ]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
