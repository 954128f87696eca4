"""A consumer whose next message the stream gave up says so, goes on or stops, and is filled again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from typer.testing import CliRunner

from kilo.bus import Bus
from kilo.consumer import Behind
from kilo.consumer.cli import app
from kilo.consumer.retention import BehindRetention, RetentionCheck
from kilo.health import Health
from tests.patience import eventually
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import Running, a_message, make
from tests.runtime.late_bus import LateBus
from tests.runtime.outbox.test_worker import Worker, write

GiveUp = Callable[[BusServer, int], Awaitable[None]]
COUNT = "SELECT count(*) FROM effects"
GAPS = "SELECT consumer, source, from_position, to_position, refilled_at IS NOT NULL FROM consumer_gaps"
EXPIRED = (10, 11, 12)
LEFT = [n for n in range(30) if n not in EXPIRED]


def lost() -> float:
    return REGISTRY.get_sample_value("consumer_events_lost_total", {"consumer": "test"}) or 0.0


async def purge(bus: BusServer, first: int) -> None:
    """Have the stream give up everything before the position ``first``."""
    client = await bus.connect()
    jetstream: Any = client.client.jetstream()  # pyright: ignore[reportAttributeAccessIssue]
    await jetstream.purge_stream("EVENTS", seq=first)
    await client.close()


async def newest(bus: BusServer) -> int:
    client = await bus.connect()
    position = await client.last_position("EVENTS")
    await client.close()
    return position


async def behind(url: str, bus: BusServer, give_up: GiveUp = purge) -> Running:
    """A consumer that has read 10 of 30; the stream has the last 5, and three rows between have expired."""
    one = make(url, bus)
    one.handle_with_effects()
    write(url, 10, aggregates=3)
    await Worker(url, bus.connect).drain()
    async with one.running():
        await one.until(COUNT, [(10,)])
    write(url, 20, aggregates=3, start=10)
    await Worker(url, bus.connect).drain()
    await give_up(bus, 26)
    one.sql("DELETE FROM outbox WHERE fingerprint = ANY(%s)", [f"acme/{n}" for n in EXPIRED])
    return one


@pytest.fixture
def stage(database_url: str, bus: BusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of ``kilo`` with the worker's role."""
    outputs = tmp_path / "outputs.json"
    outputs.write_text(bus.outputs.model_dump_json())
    parts = urlsplit(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE kilo_worker LOGIN PASSWORD 'kilo_worker-password'")
    place = f"kilo_worker:kilo_worker-password@{parts.hostname}:{parts.port}"
    monkeypatch.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=place)))
    monkeypatch.setenv("KILO_OUTPUTS", str(outputs))


async def refill(*options: str, consumer: str = "test") -> dict[str, Any]:
    arguments = ["refill", "--consumer", consumer, "--json", *options]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["missing"], found["found"], found["republished"], found["no_longer_exist"]


def check_refilled(one: Running) -> None:
    """Every event that still was anywhere had one effect, and the refilled ones came in order."""
    assert sorted(one.effects()) == LEFT
    for aggregate_id in "012":
        refilled = [n for n in one.effects(aggregate_id) if n in range(10, 25)]
        assert refilled == sorted(refilled)


@pytest.mark.usefixtures("stage")
async def test_one_that_goes_on_says_what_is_gone_and_is_filled_again(
    database_url: str, bus: BusServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = await behind(database_url, bus)
    before = lost()
    async with one.running():
        await one.until(COUNT, [(15,)])
        assert one.sql(GAPS) == [("test", "EVENTS", 11, 25, False)]
        assert "15 messages that consumer test has not read, positions 11 to 25" in caplog.text
        assert lost() == before + 15
        assert counts(await refill("--dry-run")) == (15, 12, 0, 3)
        assert one.sql(GAPS) == [("test", "EVENTS", 11, 25, False)]
        assert await newest(bus) == 30
        assert counts(await refill()) == (15, 12, 12, 3)
        await one.until(COUNT, [(27,)])
    check_refilled(one)
    assert one.sql(GAPS) == [("test", "EVENTS", 11, 25, True)]
    given = {event.fingerprint: event for event in one.seen}["acme/13"]
    assert given.replay_of == "acme/acme/13"  # the message id of the first publish
    assert [(given.created_at,)] == one.sql("SELECT created_at FROM outbox WHERE fingerprint = 'acme/13'")


@pytest.mark.usefixtures("stage")
async def test_one_that_stops_reads_nothing_until_it_is_filled_again(
    database_url: str, bus: BusServer
) -> None:
    one = await behind(database_url, bus)
    one.consumer.behind = Behind.STOP
    health = Health()
    async with one.running(health=health):
        await eventually(lambda: "retention" in health.reasons, "it never was not ready")
        assert "positions 11 to 25" in health.reasons["retention"]
        await asyncio.sleep(3)  # more than one look
        assert one.effects() == list(range(10))
        assert one.sql("SELECT position FROM consumer_positions") == [(10,)]
        # What the stream still holds is not published again.
        assert counts(await refill()) == (15, 12, 12, 3)
        await one.until(COUNT, [(27,)])
        assert health.reasons == {}
    check_refilled(one)


@pytest.mark.usefixtures("stage")
async def test_refilling_twice_doubles_nothing(database_url: str, bus: BusServer) -> None:
    one = await behind(database_url, bus)
    async with one.running():
        await one.until(COUNT, [(15,)])
    assert counts(await refill()) == (15, 12, 12, 3)
    assert await newest(bus) == 42
    assert (await refill())["gaps"] == 0
    # As one that ended before it had marked the gap: the stream has what it published, unread.
    one.sql("UPDATE consumer_gaps SET refilled_at = NULL")
    assert (await refill())["republished"] == 0
    async with one.running():
        await one.until(COUNT, [(27,)])
    one.sql("UPDATE consumer_gaps SET refilled_at = NULL")
    assert (await refill())["republished"] == 0
    assert await newest(bus) == 42
    check_refilled(one)


@pytest.mark.usefixtures("stage")
async def test_what_a_busy_bus_says_late_is_not_refilled(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await behind(database_url, bus)
    async with one.running():
        await one.until(COUNT, [(15,)])
    await refill()
    # As one that ended before it had marked the gap: the stream has what it published, unread.
    one.sql("UPDATE consumer_gaps SET refilled_at = NULL")

    async def connect_late(*_: object) -> Bus:
        return cast("Bus", LateBus(await bus.connect(), silent_reads=20))

    monkeypatch.setattr("kilo.consumer.cli.connect", connect_late)
    assert (await refill())["republished"] == 0
    assert await newest(bus) == 42


@pytest.mark.usefixtures("stage")
async def test_a_refill_leaves_what_is_parked_and_what_the_inbox_has_forgotten(
    database_url: str, bus: BusServer
) -> None:
    one = await behind(database_url, bus)
    one.sql(
        "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
        " payload, headers, created_at, error, stack_digest, attempts, position) SELECT 'test', 'parked',"
        " fingerprint, tenant, aggregate, aggregate_id, kind, '{}', '{}', created_at, '', '', 1, 14"
        " FROM outbox WHERE fingerprint = 'acme/13'"
    )
    async with one.running():
        await one.until("SELECT count(*) FROM consumer_gaps", [(1,)])
        await one.until("SELECT position FROM consumer_positions", [(30,)])
    assert (await refill("--dry-run"))["found"] == 11
    one.sql("UPDATE partition_windows SET days = 1 WHERE parent = 'inbox'")
    one.sql(
        "SET session_replication_role = replica;"
        " UPDATE outbox SET created_at = created_at - interval '2 days'"
    )
    assert (await refill("--dry-run"))["found"] == 0


@pytest.mark.usefixtures("stage")
async def test_an_unknown_consumer_is_refused(database_url: str, bus: BusServer) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["refill", "--consumer", "nobody"])
    assert "no consumer of that name has read stream EVENTS" in str(result.exception)


@asynccontextmanager
async def checking(one: Running) -> AsyncGenerator[tuple[RetentionCheck, Any]]:
    async with await AsyncConnection.connect(one.url, autocommit=True) as connection:

        @asynccontextmanager
        async def fenced() -> AsyncGenerator[None]:
            async with connection.transaction():
                yield
                await connection.execute("SELECT set_config('kilo.consumer_commits', 'on', true)")

        bus = await one.bus.connect()
        yield RetentionCheck(one.consumer, "EVENTS", connection, bus, fenced), bus
        await bus.close()


async def test_a_new_consumer_is_behind_only_from_its_beginning_on(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(n) for n in range(5)])
    await purge(bus, 4)
    async with checking(one) as (check, _):
        assert await check.begin() == 3
    await purge(bus, 6)
    async with checking(one) as (check, _):
        await check.begin()
    assert one.sql(GAPS) == [("test", "EVENTS", 4, 5, False)]


async def test_what_is_gone_while_it_reads_is_found_and_grows_until_it_is_refilled(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    one.consumer.behind = Behind.STOP
    await one.publish([a_message(n) for n in range(10)])
    async with checking(one) as (check, client):
        assert await check.begin() == 0
        await purge(bus, 4)
        batch = await anext(client.read("EVENTS", 0))
        with pytest.raises(BehindRetention, match="positions 1 to 3"):
            await check.follow(batch)
    one.sql("UPDATE consumer_gaps SET refilled_at = now()")
    async with checking(one) as (check, _):
        assert await check.begin() == 0
    await purge(bus, 6)
    before = lost()
    async with checking(one) as (check, _):
        with pytest.raises(BehindRetention, match="positions 1 to 5"):
            await check.begin()
    assert one.sql(GAPS) == [("test", "EVENTS", 1, 5, False)]
    assert lost() == before + 2
