"""What the bus lost is found and published again; what change capture delivered is marked."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
import pytest
from prometheus_client import REGISTRY

from kilo.bus import Bus, Message, Received, encode_headers, event_headers
from kilo.cdc.publication import apply_capture
from kilo.outbox import Event, enqueue, losses
from kilo.outbox.reconcile import Reconciler
from kilo.outbox.worker import Worker
from tests.events import declare
from tests.patience import eventually
from tests.runtime.conftest import BusServer
from tests.runtime.late_bus import LateBus
from tests.runtime.outbox.test_worker import waiting, write


@asynccontextmanager
async def reconciling(
    url: str, bus: BusServer, connect_bus: Callable[[], Awaitable[Bus]] | None = None
) -> AsyncGenerator[None]:
    stopping = asyncio.Event()
    runner = Reconciler(url, connect_bus or bus.connect, bus.outputs, lag_seconds=1.0)
    task = asyncio.create_task(runner.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


def republished(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT sum(republished) FROM outbox_reconciler").fetchone()
    return int(row[0] or 0) if row else 0


def age_marks(url: str, seconds: int = 30) -> None:
    # A row is marked after its event was stored: the event has to be older than the lag as well.
    time.sleep(1.5)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"UPDATE outbox SET dequeued_at = dequeued_at - interval '{seconds} s'".encode())


async def test_what_the_bus_forgot_is_published_again_once(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_found", deque())
    write(database_url, 50)
    await Worker(database_url, bus.connect).drain()
    client = await bus.connect()
    jetstream = client.client.jetstream()  # pyright: ignore[reportAttributeAccessIssue]
    for position in (3, 17, 50):
        await jetstream.delete_msg("EVENTS", position)
    await client.close()
    before = {each.headers["fingerprint"] for each in await bus.all()}
    assert len(before) == 47
    age_marks(database_url)
    async with reconciling(database_url, bus):
        found = await bus.wait(lambda found: len(found) >= 50)
        await eventually(lambda: republished(database_url) == 3)
        await asyncio.sleep(6)
    assert {each.headers["fingerprint"] for each in found} == {f"acme/{n}" for n in range(50)}
    again = [each for each in found if each.headers["fingerprint"] not in before]
    assert all(each.headers["Nats-Msg-Id"] != each.headers["fingerprint"] for each in again)
    assert len(await bus.all()) == 50
    # It is mended long since, and whoever scrapes only now is told of it.
    assert REGISTRY.get_sample_value("outbox_lost_events") == 3


async def test_nothing_is_published_again_where_nothing_is_missing(database_url: str, bus: BusServer) -> None:
    write(database_url, 50)
    await Worker(database_url, bus.connect).drain()
    age_marks(database_url)
    async with reconciling(database_url, bus):
        await asyncio.sleep(7)
    assert republished(database_url) == 0
    assert len(await bus.all()) == 50


async def test_what_a_busy_bus_says_late_is_not_lost(database_url: str, bus: BusServer) -> None:
    write(database_url, 50)
    await Worker(database_url, bus.connect).drain()
    age_marks(database_url)

    async def connect_bus() -> Bus:
        return cast("Bus", LateBus(await bus.connect()))

    async with reconciling(database_url, bus, connect_bus):
        await asyncio.sleep(7)
    assert republished(database_url) == 0
    assert len(await bus.all()) == 50


class SkewedBus:
    """A connection to a bus whose clock is off by some seconds."""

    def __init__(self, bus: Bus, seconds: float) -> None:
        self._bus, self._seconds = bus, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def read(self, stream: str, position: int, most: int = 1000) -> AsyncIterator[Sequence[Received]]:
        async for batch in self._bus.read(stream, position, most):
            yield [each._replace(stored_at=each.stored_at + self._seconds) for each in batch]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons that come more often, of what was marked a moment ago."""
    for name, seconds in (("MARGIN", 0.5), ("COMPARE", 0.2), ("CYCLE", 0.1)):
        monkeypatch.setattr(f"kilo.outbox.reconcile._{name}_SECONDS", seconds)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("own", "of_bus"), [(60, 0), (-60, 0), (0, 60)])
async def test_clocks_that_differ_by_a_minute_do_no_harm(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch, own: float, of_bus: float
) -> None:
    """Nothing is taken for lost that is there, and nothing that is lost is passed over."""
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + own)

    async def connect_bus() -> Bus:
        return cast("Bus", SkewedBus(await bus.connect(), of_bus))

    client = await bus.connect()
    for lost in (1, 2):
        write(database_url, 20, start=20 * lost - 20)
        await Worker(database_url, bus.connect).drain()
        end = await client.last_position("EVENTS")
        await client.client.jetstream().delete_msg("EVENTS", end)  # pyright: ignore[reportAttributeAccessIssue]
        async with reconciling(database_url, bus, connect_bus):
            await eventually(lambda lost=lost: republished(database_url) == lost)
            await asyncio.sleep(1.5)
    await client.close()
    assert republished(database_url) == 2
    assert len(await bus.all()) == 40


@pytest.mark.usefixtures("quick")
async def test_a_database_clock_that_was_set_back_hides_nothing(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox_reconciler (stream, verified_until)"
            " VALUES ('EVENTS', now() + interval '1 min')"
        )
    async with reconciling(database_url, bus):
        await eventually(lambda: _verified(database_url) < 0)
        write(database_url, 20)
        await Worker(database_url, bus.connect).drain()
        client = await bus.connect()
        await client.client.jetstream().delete_msg("EVENTS", 20)  # pyright: ignore[reportAttributeAccessIssue]
        await client.close()
        await eventually(lambda: republished(database_url) == 1)


def _verified(url: str) -> float:
    """How far rows were compared, in seconds from now."""
    with psycopg.connect(url) as connection:
        query = "SELECT extract(epoch FROM max(verified_until) - now())::float8 FROM outbox_reconciler"
        row = connection.execute(query).fetchone()
    assert row
    return float(row[0])


@pytest.mark.parametrize("new", [0, 40])
async def test_a_stream_that_was_lost_is_filled_again(database_url: str, bus: BusServer, new: int) -> None:
    """Also when the new stream has grown past what was read of the old one."""
    write(database_url, 20)
    await Worker(database_url, bus.connect).drain()
    age_marks(database_url)
    async with reconciling(database_url, bus):
        await eventually(lambda: _marked(database_url) == 20)
    client = await bus.connect()
    await client.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
    await client.close()
    await declare(bus.server.url, bus.outputs)
    write(database_url, new, start=20)
    await Worker(database_url, bus.connect).drain()
    async with reconciling(database_url, bus):
        found = await bus.wait(lambda found: len(found) >= 20 + new)
        await eventually(lambda: republished(database_url) == 20)
    assert len(found) == 20 + new
    assert {each.headers["fingerprint"] for each in found} == {f"acme/{n}" for n in range(20 + new)}


async def test_a_stream_that_is_lost_while_it_is_compared_is_filled_again(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.outbox.reconcile._MISSING_MOST", 6)
    monkeypatch.setattr("kilo.outbox.reconcile._BATCH", 4)
    async with reconciling(database_url, bus):
        for start in range(0, 30, 10):
            write(database_url, 10, start=start)
            await Worker(database_url, bus.connect).drain()
        age_marks(database_url)
        await eventually(lambda: _marked(database_url) == 30)
        client = await bus.connect()
        await client.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
        await client.close()
        await declare(bus.server.url, bus.outputs)
        found = await bus.wait(lambda found: len(found) >= 30)
    assert {each.headers["fingerprint"] for each in found} == {f"acme/{n}" for n in range(30)}


def _marked(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(dispatched_position) FROM outbox_reconciler").fetchone()
    return int(row[0] or 0) if row else 0


async def test_rows_that_change_capture_delivered_are_marked(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
        with connection.transaction():
            enqueue(connection, Event("acme", "payment", "1", "payment.made", {}, "acme/p1"))
        row = connection.execute("SELECT created_at FROM outbox").fetchone()
    assert row is not None
    headers = event_headers(
        message_id="acme/p1",
        fingerprint="acme/p1",
        kind="payment.made",
        tenant="acme",
        aggregate_id="1",
        created_at=row[0],
        publisher="cdc",
    )
    client = await bus.connect()
    await client.publish([Message("events.payment", "1", encode_headers(headers), b"{}")])
    await client.close()
    async with reconciling(database_url, bus):
        await eventually(lambda: waiting(database_url) == 0)
    _drop_slot(database_url)
    assert republished(database_url) == 0


async def test_rows_whose_slot_was_lost_are_published_again(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
        with connection.transaction():
            enqueue(connection, Event("acme", "payment", "1", "payment.made", {}, "acme/p1"))
    _drop_slot(database_url)
    async with reconciling(database_url, bus):
        (found,) = await bus.wait(lambda found: len(found) >= 1)
        await eventually(lambda: waiting(database_url) == 0)
    assert found.headers["fingerprint"] == "acme/p1"


async def test_a_slow_connector_is_not_taken_for_a_loss(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
        with connection.transaction():
            enqueue(connection, Event("acme", "payment", "1", "payment.made", {}, "acme/p1"))
    async with reconciling(database_url, bus):
        await asyncio.sleep(13)
    _drop_slot(database_url)
    assert await bus.all() == []


def _drop_slot(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE database = current_database()"
        )
