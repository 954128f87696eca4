"""Events while everything is killed at random: none lost, one effect each, order kept per aggregate."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from sandbox.servers.moto import MotoServer
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.events import Platform, make_platform

SECONDS = 30
AGGREGATES = 20


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    postgres, nats, moto = (
        PostgresServer(tmp_path / "postgres"),
        NatsServer(tmp_path / "nats", sync_interval="1s"),
        MotoServer(tmp_path / "moto"),
    )
    for server in (postgres, nats, moto):
        server.start()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE chaos")
    with make_platform(tmp_path, postgres, nats, moto, "chaos") as made:
        yield made
    for server in (moto, nats, postgres):
        server.stop()


class Writer(threading.Thread):
    """Sends numbered events of some aggregates, each until it is acknowledged."""

    def __init__(self, url: str, lane: int, stopping: threading.Event) -> None:
        super().__init__()
        self._url, self._lane, self._stopping = url, lane, stopping
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=10) as client:
            while not self._stopping.is_set():
                aggregate = "payment" if self._lane % 2 else "order"
                if self._send(client, aggregate, number):
                    number += 1

    def _send(self, client: httpx.Client, aggregate: str, number: int) -> bool:
        key = f"{self._lane}-{number}"
        body = {
            "aggregate": aggregate,
            "aggregate_id": str(self._lane),
            "kind": f"{aggregate}.made",
            "payload": {"number": number, "email": "ana@example.com"},
        }
        for _ in range(600):
            try:
                answer = client.post(
                    f"{self._url}/v1/events",
                    json=body,
                    headers={"x-tenant-id": "globex", "idempotency-key": key},
                )
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if answer.status_code in {200, 201}:
                self.acknowledged.append(f"globex/{key}")
                return True
            assert answer.status_code >= 500, answer.text
            time.sleep(0.1)
        return False


def restart(process: object) -> None:
    process.kill()  # pyright: ignore[reportAttributeAccessIssue]
    process.start()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.timeout(400)
def test_whatever_is_killed_nothing_is_lost_and_nothing_happens_twice(platform: Platform) -> None:
    platform.sql(
        """
        CREATE TABLE effects (serial bigserial, fingerprint text, lane text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO effects (fingerprint, lane) VALUES (NEW.last_fingerprint, NEW.aggregate_id);
            RETURN NEW;
        END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON projection FOR EACH ROW EXECUTE FUNCTION note();
        """
    )
    platform.start_ingest()
    platform.start_worker()
    platform.start_worker("worker-2")
    platform.start_consumer()
    platform.start_reconciler()
    platform.start_debezium()
    processes = platform.processes
    kills: dict[str, Callable[[], None]] = {
        "ingest": lambda: restart(processes["ingest"]),
        "worker": lambda: restart(processes["worker"]),
        "worker-2": lambda: restart(processes["worker-2"]),
        "consumer": lambda: restart(processes["consumer"]),
        "reconciler": lambda: restart(processes["reconciler"]),
        "debezium": lambda: restart(platform.debezium),
        "nats": lambda: restart(platform.nats),
        "postgres": lambda: restart(platform.postgres),
        "sessions": lambda: _cut_sessions(platform),
    }
    stopping = threading.Event()
    writers = [Writer(platform.ingest_url, lane, stopping) for lane in range(AGGREGATES)]
    for writer in writers:
        writer.start()
    order = random.Random(7)
    until = time.monotonic() + SECONDS
    done: list[str] = []
    while time.monotonic() < until or len(done) < len(kills):
        name = order.choice([each for each in kills if each not in done] or list(kills))
        kills[name]()
        done.append(name)
        _supervise(platform)
        time.sleep(order.uniform(0.2, 1.0))
    stopping.set()
    for writer in writers:
        writer.join()
    acknowledged = [key for writer in writers for key in writer.acknowledged]
    assert len(acknowledged) > 100
    _wait_until(
        lambda: (
            _supervise(platform) or platform.sql("SELECT count(*) FROM effects")[0][0] >= len(acknowledged)
        )
    )
    effects = platform.sql("SELECT fingerprint, lane FROM effects ORDER BY serial")
    assert sorted(fingerprint for fingerprint, _ in effects) == sorted(acknowledged)
    for lane in range(AGGREGATES):
        numbers = [int(f.rpartition("-")[2]) for f, each in effects if each == str(lane)]
        assert numbers == sorted(numbers), (lane, numbers)
    assert platform.sql("SELECT count(*) FROM dead_letters WHERE state <> 'replayed'") == [(0,)]


def _cut_sessions(platform: Platform) -> None:
    platform.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _supervise(platform: Platform) -> bool:
    """As Kubernetes does: what ended is started again."""
    if platform.debezium and not platform.debezium.running:
        platform.debezium.start()
    for process in platform.processes.values():
        if not process.running:
            process.start()
    return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.5)
