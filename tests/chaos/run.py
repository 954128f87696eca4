"""One run of the chaos load: a whole platform, writers, faults at random, and the count at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.kafka import KafkaServer
from sandbox.servers.moto import MotoServer
from tests.chaos.faults import Faults, small_disk
from tests.chaos.load import Load, Outcome
from tests.chaos.proxy import Proxy
from tests.events import Platform, make_platform

BusName = Literal["nats", "kafka"]
_SETTLE_SECONDS = 240
STALLED_SECONDS = 20.0
"""Before a connector that moves nothing is started again."""


@dataclass(frozen=True)
class Scene:
    """A platform of which everything can be killed, cut and stalled."""

    platform: Platform
    to_bus: Proxy
    to_database: Proxy
    bus_directory: Path
    disk: Path | None
    """The same, when it is a small disk of its own."""


@dataclass(frozen=True)
class Run:
    """A run and what came of it."""

    bus: BusName
    seconds: float
    settle_seconds: float
    load: Load
    faults: Faults
    outcome: Outcome


@contextmanager
def scene(directory: Path, bus_name: BusName) -> Generator[Scene]:
    """Real servers, the platform's processes on them, and a proxy before database and bus."""
    with ExitStack() as stack:
        disk = directory / "bus"
        mounted = stack.enter_context(small_disk(disk))
        to_bus, to_database = stack.enter_context(Proxy()), stack.enter_context(Proxy())
        postgres, moto = PostgresServer(directory / "postgres"), MotoServer(directory / "moto")
        bus: NatsServer | KafkaServer
        if bus_name == "kafka":
            bus = KafkaServer(disk, advertised_port=to_bus.port)
        else:
            bus = NatsServer(disk, sync_interval="1s")
        to_bus.target = bus.port
        for server in (postgres, bus, moto):
            server.start()
            stack.callback(server.stop)
        to_database.target = postgres.port
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE chaos")
        platform = stack.enter_context(
            make_platform(
                directory,
                postgres,
                bus,
                moto,
                "chaos",
                bus_url=f"{bus_name}://127.0.0.1:{to_bus.port}",
                database_port=to_database.port,
            )
        )
        yield Scene(platform, to_bus, to_database, disk, disk if mounted else None)


def start_all(platform: Platform) -> None:
    """Two workers, two consumers, and one of everything else."""
    platform.start_ingest()
    platform.start_worker()
    platform.start_worker("worker-2")
    platform.start_consumer()
    platform.start_consumer("consumer-2")
    platform.start_reconciler()
    platform.start_debezium()
    platform.start_cdc_watch(STALLED_SECONDS)


def run(
    directory: Path,
    bus: BusName,
    seconds: float,
    seed: int = 7,
    pause_seconds: float = 0.0,
    told: Callable[[Load, Faults, str], None] = lambda _load, _faults, _what: None,
) -> Run:
    """Write for ``seconds`` and at least until every fault has come once, then wait until all is settled.

    Args:
        directory: for servers' state and logs.
        bus: which one.
        seconds: how long.
        seed: of the faults' order.
        pause_seconds: of each writer between two events.
        told: called after every fault, and while it settles.
    """
    with scene(directory, bus) as made:
        start_all(made.platform)
        faults = Faults(made.platform, made.to_bus, made.to_database, made.disk, seed)
        load = Load(made.platform, pause_seconds=pause_seconds)
        load.start()
        while load.seconds < seconds or len(faults.counts) < len(faults.names):
            faults.pause()
            told(load, faults, faults.one(load.seconds))
        load.stop_writing()
        wrote = load.seconds
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not load.settled() and time.monotonic() < deadline:
            faults.supervise()
            told(load, faults, "settling")
            time.sleep(1)
        settled = load.seconds
        # Whatever would be delivered again comes now.
        time.sleep(8)
        load.stop_sampling()
        return Run(bus, wrote, settled - wrote, load, faults, load.outcome())
