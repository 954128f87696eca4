"""Handlers that are plain functions: exactly once too, and one that hangs holds nobody up."""

from __future__ import annotations

import threading
import time

from opentelemetry import trace

from kilo.consumer import Event, SyncConnection
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import HANGS, QUICK, a_message, make

COUNT = "SELECT count(*) FROM effects"


async def test_what_it_writes_is_in_the_transaction_of_the_inbox(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    fails = {3}

    @one.consumer.on("order.paid", QUICK)
    def handle(event: Event, connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        n = event.payload["n"]
        done = connection.execute("INSERT INTO effects (n, aggregate_id) VALUES (%s, 'a') RETURNING n", (n,))
        assert done.rowcount == 1
        assert done.fetchone() == (n,)
        if n in fails:
            msg = "not now"
            raise RuntimeError(msg)

    await one.publish([a_message(n, str(n % 2)) for n in range(6)])
    await one.publish([a_message(n, str(n % 2), message_id=f"again/{n}") for n in range(6)])
    async with one.running():
        await one.until("SELECT state FROM dead_letters WHERE fingerprint = 'acme/3'", [("parked",)])
        assert sorted(one.effects()) == [0, 1, 2, 4]
        fails.clear()
        one.sql("UPDATE dead_letters SET state = 'replaying', attempts = 0 WHERE state = 'parked'")
        await one.until("SELECT count(*) FROM inbox", [(6,)])
    assert sorted(one.effects()) == [0, 1, 2, 3, 4, 5]


async def test_many_rows_can_be_written_at_once_and_read(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)

    @one.consumer.on("order.paid", QUICK)
    def handle(_event: Event, connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        changed = connection.executemany(
            "INSERT INTO effects (n, aggregate_id) VALUES (%s, 'a')", [(n,) for n in range(10)]
        )
        found = [n for (n,) in connection.execute("SELECT n FROM effects ORDER BY n")]
        connection.execute("INSERT INTO effects (n) VALUES (%s)", (changed + len(found),))

    await one.publish([a_message(1)])
    async with one.running():
        await one.until("SELECT max(n) FROM effects", [(20,)])


async def test_one_that_hangs_is_given_up_and_what_it_does_later_has_no_effect(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    go_on, refused = threading.Event(), list[str]()

    @one.consumer.on("order.hangs", HANGS)
    def hang(_event: Event, connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        go_on.wait(30)
        try:
            connection.execute("INSERT INTO effects (n) VALUES (666)")
        except TimeoutError as error:
            refused.append(str(error))
            raise

    @one.consumer.on("order.paid", QUICK)
    def handle(event: Event, connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.execute("INSERT INTO effects (n) VALUES (%s)", (event.payload["n"],))

    await one.publish([a_message(1, "a", kind="order.hangs"), a_message(2, "b")])
    async with one.running():
        await one.until("SELECT n FROM effects", [(2,)])
        await one.until(
            "SELECT state, attempts, split_part(error, ' ', 1) FROM dead_letters",
            [("parked", 3, "TimeoutError")],
        )
        go_on.set()
        await one.publish([a_message(3, "b")])
        await one.until("SELECT n FROM effects ORDER BY n", [(2,), (3,)])
    assert refused
    assert "given up" in refused[0]


async def test_one_that_waits_in_the_database_is_given_up(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)

    @one.consumer.on("order.hangs", HANGS)
    def hang(_event: Event, connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.execute("INSERT INTO effects (n) VALUES (666)")
        connection.execute("SELECT pg_sleep(3600)")

    one.handle_with_effects()
    await one.publish([a_message(1, "a", kind="order.hangs"), a_message(2, "b")])
    async with one.running():
        await one.until("SELECT state, attempts FROM dead_letters", [("parked", 3)])
        await one.until("SELECT n FROM effects", [(2,)])


async def test_it_does_not_run_on_the_event_loop_and_has_the_spans_context(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    threads: list[str] = []

    @one.consumer.on("order.paid", QUICK)
    def handle(_event: Event, _connection: SyncConnection) -> None:  # pyright: ignore[reportUnusedFunction]
        threads.append(threading.current_thread().name)
        trace.get_current_span()
        time.sleep(0.01)

    await one.publish([a_message(n) for n in range(3)])
    async with one.running():
        await one.until("SELECT count(*) FROM inbox", [(3,)])
    assert threads == ["handlers"] * 3
