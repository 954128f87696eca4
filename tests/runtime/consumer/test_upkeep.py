"""The consumer's upkeep ends whatever is locked, goes on measuring, and says what it can't do."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import AsyncConnection

from kilo.consumer import Event, upkeep
from kilo.consumer.upkeep import InboxUpkeep
from kilo.health import Health
from tests.patience import PATIENCE_SECONDS, eventually
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import QUICK, Running, a_message, make


def pending() -> float | None:
    return REGISTRY.get_sample_value("consumer_events_pending")


def upkeep_of(one: Running, health: Health) -> InboxUpkeep:
    return InboxUpkeep(one.url, one.bus.connect, "EVENTS", one.consumer.name, health)


@contextmanager
def locked(url: str, table: str) -> Generator[None]:
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@pytest.mark.parametrize(
    ("table", "part"),
    [("inbox", "partitions"), ("dead_letters", "dead letters"), ("consumer_positions", "position")],
)
async def test_a_locked_table_holds_up_nothing_but_what_needs_it(
    database_url: str, bus: BusServer, table: str, part: str
) -> None:
    one, health = make(database_url, bus), Health()
    one.handle_with_effects()
    await one.publish([a_message(1)])
    async with one.running():
        await one.until("SELECT count(*) FROM effects", [(1,)])
    kept = upkeep_of(one, health)
    await kept.look()
    assert (pending(), health.reasons) == (0, {})
    with locked(database_url, table):
        await one.publish([a_message(n) for n in range(2, 5)])
        async with asyncio.timeout(PATIENCE_SECONDS):
            await kept.look()
        assert pending() == 3
        assert health.reasons.keys() == {"upkeep"}
        assert health.reasons["upkeep"].startswith(f"{part}: ")
    await kept.look()
    assert health.reasons == {}


async def test_who_only_fails_while_events_are_pending_is_not_ready(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_FAILING_SECONDS", 0.0)
    one, health = make(database_url, bus, batch=1), Health()
    kept = upkeep_of(one, health)
    goes_on, broken = asyncio.Event(), True

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        if broken and event.fingerprint == "acme/1":
            msg = "as everything does now"
            raise ConnectionError(msg)
        await goes_on.wait()
        await connection.execute("INSERT INTO effects (n, aggregate_id) VALUES (1, 'x')")

    await one.publish([a_message(1, "a"), a_message(2, "b"), a_message(3, "c")])
    async with one.running():
        await one.until("SELECT count(*) > 0 FROM dead_letters", [(True,)])
        await kept.look()
        assert "no event has had its effect" in health.reasons["handlers"]
        assert "are pending" in health.reasons["handlers"]
        broken = False
        goes_on.set()
        await one.until("SELECT count(*) FROM effects", [(3,)])
        await kept.look()
        assert health.reasons == {}


async def test_a_bus_that_is_away_is_no_end_of_the_upkeep(database_url: str, bus: BusServer) -> None:
    one, health, stopping = make(database_url, bus), Health(), asyncio.Event()

    async def nobody() -> Any:
        await asyncio.sleep(0)
        raise TimeoutError

    kept = InboxUpkeep(database_url, nobody, "EVENTS", one.consumer.name, health)
    running = asyncio.create_task(kept.run(stopping))
    await eventually(lambda: health.reasons == {"upkeep": "pending events: TimeoutError"})
    stopping.set()
    await running
