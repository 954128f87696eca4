"""The worker on a real database and bus: what arrives, how often, in which order, whatever breaks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest

from kilo.bus import Bus, Message, Receipt, Received
from kilo.outbox import Event, enqueue
from kilo.outbox.worker import Worker
from tests.patience import eventually
from tests.runtime.conftest import BusServer


def write(url: str, count: int, aggregates: int = 10, start: int = 0) -> None:
    with psycopg.connect(url) as connection:
        for n in range(start, start + count):
            event = Event("acme", "order", str(n % aggregates), "order.paid", {"n": n}, f"acme/{n}")
            enqueue(connection, event)


def waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM outbox WHERE dequeued_at IS NULL").fetchone()
    return row[0] if row else -1


def check_whole(found: Sequence[Received], count: int) -> None:
    """Every event once, and in order per aggregate."""
    assert len(found) == count
    by_aggregate: dict[str, list[int]] = defaultdict(list)
    for each in found:
        by_aggregate[each.headers["aggregate-id"]].append(int(each.headers["fingerprint"].partition("/")[2]))
    assert sum(map(len, by_aggregate.values())) == count
    for numbers in by_aggregate.values():
        assert numbers == sorted(set(numbers))


@asynccontextmanager
async def running(url: str, bus: BusServer, count: int = 1) -> AsyncGenerator[list[Worker]]:
    stopping = asyncio.Event()
    workers = [Worker(url, bus.connect, name=f"w{n}") for n in range(count)]
    tasks = [asyncio.create_task(each.run(stopping)) for each in workers]
    yield workers
    stopping.set()
    await asyncio.gather(*tasks)


async def test_what_waits_is_published_once_in_order_and_marked(database_url: str, bus: BusServer) -> None:
    write(database_url, 300)
    assert await Worker(database_url, bus.connect, batch=64).drain() == 300
    check_whole(await bus.all(), 300)
    assert waiting(database_url) == 0
    assert await Worker(database_url, bus.connect).drain() == 0


async def test_a_message_is_what_the_contract_says(database_url: str, bus: BusServer) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with psycopg.connect(database_url) as connection:
        payload = '{"big": 123456789012345678901234567890, "text": "ä🚚", "nested": {"a": [1.10, null]}}'
        enqueue(connection, Event("acme", "order", "7", "order.paid", payload, "acme/k", trace))
        created = connection.execute("SELECT created_at FROM outbox").fetchone()
    await Worker(database_url, bus.connect).drain()
    (message,) = await bus.all()
    assert created is not None
    assert message.subject == "events.order"
    assert message.headers == {
        "Nats-Msg-Id": "acme/acme/k",
        "fingerprint": "acme/k",
        "kind": "order.paid",
        "tenant": "acme",
        "aggregate-id": "7",
        "traceparent": trace,
        "created-at": created[0].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "publisher": "worker",
        "ce-specversion": "1.0",
        "ce-source": "/kilo",
        "ce-id": "acme/acme/k",
        "ce-type": "order.paid",
        "ce-subject": "7",
        "ce-time": created[0].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ce-tenant": "acme",
        "ce-traceparent": trace,
        "content-type": "application/json",
    }
    with psycopg.connect(database_url) as connection:
        same = connection.execute(
            "SELECT %s::jsonb = %s::jsonb", (message.payload.decode(), payload)
        ).fetchone()
    assert same == (True,)


async def test_rows_of_change_capture_are_left_alone(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO outbox_cdc_aggregates VALUES ('payment')")
        enqueue(connection, Event("acme", "payment", "1", "payment.made", {}, "acme/cdc"))
        enqueue(connection, Event("acme", "order", "1", "order.paid", {}, "acme/worker"))
    await Worker(database_url, bus.connect).drain()
    assert [each.headers["fingerprint"] for each in await bus.all()] == ["acme/worker"]


async def test_a_notification_wakes_it(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.outbox.worker._IDLE_FIRST_SECONDS", 3600.0)
    monkeypatch.setattr("kilo.outbox.worker._IDLE_LONGEST_SECONDS", 3600.0)
    async with running(database_url, bus) as (worker,):
        write(database_url, 1)
        await eventually(lambda: worker.published >= 1)
        await asyncio.sleep(0.2)
        write(database_url, 1, start=1)
        await eventually(lambda: worker.published == 2)


async def test_it_polls_where_notifications_are_off(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET kilo.outbox_notify = off'.encode())
    async with running(database_url, bus):
        write(database_url, 5)
        await bus.wait(lambda found: len(found) == 5)


async def test_workers_share_the_slots_and_give_them_back(database_url: str, bus: BusServer) -> None:
    async with running(database_url, bus, 3):

        def shares() -> list[int]:
            with psycopg.connect(database_url) as connection:
                query = "SELECT count(*) FROM outbox_slots WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1"
                return [row[0] for row in connection.execute(query).fetchall()]

        await eventually(lambda: shares() == [21, 21, 22])
        write(database_url, 500, aggregates=50)
        check_whole(await bus.wait(lambda found: len(found) >= 500), 500)
    assert shares() == []


async def test_the_slots_of_a_worker_that_died_are_taken_over(database_url: str, bus: BusServer) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE outbox_slots SET owner = 'dead', epoch = -1 WHERE slot < 40")
        connection.execute(
            "INSERT INTO leases VALUES ('outbox/worker/dead', 'dead', -1, now() + interval '2 s')"
        )
    write(database_url, 200, aggregates=100)
    async with running(database_url, bus):
        check_whole(await bus.wait(lambda found: len(found) >= 200), 200)


class Refusing:
    """A bus on which some aggregates can't be published, as when their message is too large for it."""

    def __init__(self, bus: Bus, refused: set[str]) -> None:
        self._bus = bus
        self.refused = refused

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def publish(self, messages: Sequence[Message], deadline_seconds: float = 10) -> list[Receipt]:
        taken = [each for each in messages if each.key not in self.refused]
        receipts = iter(await self._bus.publish(taken, deadline_seconds))
        return [
            Receipt(None, error="message size exceeds maximum allowed")
            if each.key in self.refused
            else next(receipts)
            for each in messages
        ]


async def test_a_blocked_key_holds_only_its_own_events_and_keeps_their_order(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.outbox.blocked._FIRST_SECONDS", 0.05)
    monkeypatch.setattr("kilo.outbox.blocked._LONGEST_SECONDS", 0.2)
    refused = {"acme/order/3"}

    async def connect() -> Bus:
        return Refusing(await bus.connect(), refused)  # pyright: ignore[reportReturnType]

    write(database_url, 100)
    stopping = asyncio.Event()
    task = asyncio.create_task(Worker(database_url, connect, batch=16, lease_seconds=1.0).run(stopping))
    await bus.wait(lambda found: len(found) == 90)
    write(database_url, 100, start=100)
    await bus.wait(lambda found: len(found) == 180)
    with psycopg.connect(database_url) as connection:
        query = "SELECT tenant, aggregate, aggregate_id, error FROM outbox_blocked"
        blocked = connection.execute(query).fetchall()
        # Another tenant's events of the same aggregate and id are none of its business.
        enqueue(connection, Event("globex", "order", "3", "order.paid", {}, "globex/1"))
    assert blocked == [("acme", "order", "3", "message size exceeds maximum allowed")]
    await bus.wait(lambda found: found[-1].headers["tenant"] == "globex")
    refused.clear()
    found = await bus.wait(lambda found: len(found) >= 201)
    check_whole([each for each in found if each.headers["tenant"] == "acme"], 200)
    await eventually(lambda: not waiting(database_url))
    with psycopg.connect(database_url) as connection:
        for _ in range(100):
            if not connection.execute("SELECT FROM outbox_blocked").fetchall():
                break
            await asyncio.sleep(0.05)
        assert not connection.execute("SELECT FROM outbox_blocked").fetchall()
    stopping.set()
    await task


async def test_it_goes_on_after_the_bus_was_killed(database_url: str, bus: BusServer) -> None:
    async with running(database_url, bus):
        write(database_url, 200)
        await bus.wait(lambda found: len(found) >= 50)
        bus.server.kill()
        write(database_url, 200, start=200)
        bus.server.start()
        check_whole(await bus.wait(lambda found: len(found) >= 400), 400)
        await eventually(lambda: not waiting(database_url))


async def test_it_goes_on_after_its_database_sessions_were_cut(database_url: str, bus: BusServer) -> None:
    async with running(database_url, bus):
        for start in range(0, 300, 100):
            write(database_url, 100, start=start)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'kilo-outbox%'"
                )
        check_whole(await bus.wait(lambda found: len(found) >= 300), 300)


async def test_the_bus_without_its_stream_takes_nothing_and_loses_nothing(
    database_url: str, bus: BusServer
) -> None:
    other = await bus.connect()
    await other.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
    write(database_url, 5)
    async with running(database_url, bus):
        await asyncio.sleep(0.5)
        assert waiting(database_url) == 5
        from tests.events import declare

        await declare(bus.server.url, bus.outputs)
        check_whole(await bus.wait(lambda found: len(found) >= 5), 5)
    await other.close()
