"""What a server can lose: the bus its newest messages or its memory of message ids, the database its last
hours or the slot, the worker its time. Nothing stays lost, and everything has one effect."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import Counter

import httpx
import psycopg
import pytest

from kilo.bus.nats import NatsBus
from kilo.cdc.publication import apply_capture
from kilo.testing.servers.postgres import PostgresServer
from tests.chaos.conftest import effects, in_stream, wait_for, write
from tests.chaos.run import Scene
from tests.patience import PATIENCE_SECONDS, until


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
async def test_a_bus_that_lost_what_it_had_acknowledged(made: Scene) -> None:
    """As when the machine loses power before the bus has synced: older files, and positions used again."""
    platform = made.platform
    platform.start_worker()
    platform.start_consumer()
    platform.start_reconciler()
    written = await asyncio.to_thread(write, platform.url, range(100))
    await asyncio.to_thread(wait_for, made, written)
    directory = made.bus_directory
    platform.bus.kill()
    shutil.copytree(directory / "store", directory.parent / "synced")
    platform.bus.start()
    for process in ("consumer",):
        platform.processes[process].kill()
    written += await asyncio.to_thread(write, platform.url, range(100, 200))
    until(
        lambda: platform.sql("SELECT count(*) FROM outbox WHERE dequeued_at IS NULL") == [(0,)], "dispatched"
    )
    platform.bus.kill()
    shutil.rmtree(directory / "store")
    shutil.copytree(directory.parent / "synced", directory / "store")
    platform.bus.start()
    platform.processes["consumer"].start()
    written += await asyncio.to_thread(write, platform.url, range(200, 250))
    await asyncio.to_thread(wait_for, made, written)
    assert platform.sql("SELECT sum(republished) >= 100 FROM outbox_reconciler") == [(True,)]
    found = await in_stream(made)
    assert {each.headers["fingerprint"] for each in found} == set(written)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
async def test_an_event_that_comes_again_after_the_duplicate_window(made: Scene) -> None:
    platform = made.platform
    bus = await _client(made)
    jetstream = bus.client.jetstream()
    info = await jetstream.stream_info("EVENTS")
    info.config.duplicate_window = 1.0
    await jetstream.update_stream(info.config)
    await bus.close()
    platform.start_worker()
    platform.start_consumer()
    written = await asyncio.to_thread(write, platform.url, range(30))
    await asyncio.to_thread(wait_for, made, written)
    await asyncio.sleep(2)
    # As when the database lost the marks, and came back after longer than the window.
    platform.sql("UPDATE outbox SET dequeued_at = NULL")
    platform.processes["worker"].kill()
    platform.processes["worker"].start()
    until(lambda: platform.sql("SELECT sum(duplicates) FROM inbox") == [(30,)], "delivered again")
    await asyncio.to_thread(wait_for, made, written)
    assert len(await in_stream(made)) == 60


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_database_that_was_restored_from_before(made: Scene) -> None:
    platform, postgres = made.platform, made.platform.postgres
    platform.start_worker()
    platform.start_consumer()
    platform.start_reconciler()
    platform.start_debezium()
    written = write(platform.url, range(50)) + write(platform.url, range(50), "payment", "2")
    wait_for(made, written)
    data = postgres.directory / "data"
    postgres.stop()
    shutil.copytree(data, postgres.directory / "backup", symlinks=True)
    _own_as(postgres)
    postgres.start()
    between = write(platform.url, range(50, 80)) + write(platform.url, range(50, 80), "payment", "2")
    wait_for(made, written + between)
    postgres.stop()
    shutil.rmtree(data)
    (postgres.directory / "backup").rename(data)
    postgres.start()
    after = write(platform.url, range(80, 120)) + write(platform.url, range(80, 120), "payment", "2")
    _supervised(made, lambda: effects(made).keys() >= set(written + between + after))
    # What the database had forgotten and the bus had not is handled again in the restored database: once.
    wait_for(made, written + between + after)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_slot_that_was_lost(made: Scene) -> None:
    platform = made.platform
    platform.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    # The command line that the server was started with goes before.
    platform.postgres.stop()
    platform.postgres._settings["max_slot_wal_keep_size"] = "1MB"  # pyright: ignore[reportPrivateUsage]
    platform.postgres.start()
    platform.start_consumer()
    platform.start_reconciler()
    platform.start_debezium()
    written = write(platform.url, range(20), "payment", "2")
    wait_for(made, written)
    assert platform.debezium
    platform.debezium.stop()
    written += write(platform.url, range(20, 40), "payment", "2")
    for _ in range(4):
        platform.sql("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
        platform.sql("DROP TABLE filler")
        platform.sql("SELECT pg_switch_wal()")
        platform.sql("CHECKPOINT")
    assert platform.sql("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    with psycopg.connect(platform.url, autocommit=True) as connection:
        assert apply_capture(connection, platform.outputs.outbox).slot_created
    platform.debezium.start()
    written += write(platform.url, range(40, 60), "payment", "2")
    wait_for(made, written)
    publishers = Counter(row[0] for row in platform.sql("SELECT publisher FROM inbox"))
    assert publishers == {"cdc": 40, "worker": 20}, "what the slot lost comes from the reconciler"


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
async def test_changing_what_goes_by_change_capture_while_events_flow(made: Scene) -> None:
    """None is lost, none published by both: the bus would drop the second, so the worker's count tells."""
    platform = made.platform
    platform.start_worker()
    platform.start_consumer()
    platform.start_reconciler()
    platform.start_debezium()
    stopping, written = threading.Event(), list[str]()

    def flow(aggregate: str, aggregate_id: str) -> None:
        n = 0
        while not stopping.is_set():
            written.extend(write(platform.url, range(n, n + 10), aggregate, aggregate_id))
            n += 10

    flows = [("order", "1"), ("order", "2"), ("payment", "3"), ("payment", "4")]
    threads = [threading.Thread(target=flow, args=each) for each in flows]
    for thread in threads:
        thread.start()
    choices = [("payment", "order"), ("order",), (), ("payment",), ("order", "payment"), ("payment",)]
    for choice in choices:
        await asyncio.sleep(2)
        outbox = platform.outputs.outbox.model_copy(update={"cdc_aggregates": choice})
        with psycopg.connect(platform.url, autocommit=True) as connection:
            apply_capture(connection, outbox)
    await asyncio.sleep(2)
    stopping.set()
    for thread in threads:
        thread.join()
    await asyncio.to_thread(wait_for, made, written)
    rows = dict(platform.sql("SELECT fingerprint, publisher FROM outbox"))
    assert set(rows.values()) == {"worker", "cdc"}
    found = await in_stream(made)
    assert {each.headers["fingerprint"]: each.headers["publisher"] for each in found} == rows
    assert len(found) == len(rows)
    by_worker = sum(publisher == "worker" for publisher in rows.values())
    assert _metric(made, "worker", 'outbox_published_total{publisher="worker"}') == by_worker
    assert _metric(made, "worker", "outbox_duplicates_suppressed_total") == 0
    assert platform.sql("SELECT sum(republished) FROM outbox_reconciler") == [(0,)]


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
async def test_a_worker_that_is_asked_to_stop_holds_nothing_and_marks_nothing_unacknowledged(
    made: Scene,
) -> None:
    platform = made.platform
    for start in range(0, 40_000, 1000):
        platform.sql(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " SELECT 'initech', 'order', (n % 500)::text, 'order.made', '{}', 'initech/' || n"
            f" FROM generate_series({start + 1}, {start + 1000}) n"
        )
    for _ in range(3):
        platform.start_worker()
        await asyncio.sleep(0.3)
        platform.processes["worker"].stop()
        assert platform.processes["worker"].returncode == 0
        assert platform.sql("SELECT count(*) FROM outbox_slots WHERE owner IS NOT NULL") == [(0,)]
        assert platform.sql("SELECT count(*) FROM leases WHERE name LIKE 'outbox/worker/%'") == [(0,)]
        found = {each.headers["fingerprint"] for each in await in_stream(made)}
        marked = {
            row[0] for row in platform.sql("SELECT fingerprint FROM outbox WHERE dequeued_at IS NOT NULL")
        }
        assert marked
        assert marked == found


async def _client(made: Scene) -> NatsBus:
    return await NatsBus.connect(made.platform.bus.url, "test")


def _metric(made: Scene, process: str, name: str) -> float:
    text = httpx.get(f"{made.platform.processes[process].env['TEST_URL']}/metrics").text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def _own_as(postgres: PostgresServer) -> None:
    """Give the copy the owner of the original."""
    original = postgres.directory / "data"
    status = original.stat()
    for path in [postgres.directory / "backup", *(postgres.directory / "backup").rglob("*")]:
        shutil.chown(path, status.st_uid, status.st_gid)


def _supervised(made: Scene, condition: object) -> None:
    """As Kubernetes does: what ended is started again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():  # pyright: ignore[reportCallIssue, reportGeneralTypeIssues]
        assert time.monotonic() < deadline
        if made.platform.debezium and not made.platform.debezium.running:
            made.platform.debezium.start()
        time.sleep(0.5)
