"""No handler and no message stops the consumer: what goes wrong is one event's failure, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from kilo.bus import Message, Received, encode_headers
from kilo.consumer import Event, Park
from kilo.consumer.event import Envelope, Unreadable, envelope, payload_of, stand_in
from kilo.consumer.inbox import headers_json
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import QUICK, a_message, make

LONG = os.urandom(6000).hex()
"""Too long for an index row, however it is compressed."""


async def _fail(how: str, connection: AsyncConnection[Any]) -> None:
    match how:
        case "a row too long for its index":
            await connection.execute("INSERT INTO urls VALUES (%s)", (LONG,))
        case "a closed cursor":
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT 1")
            await cursor.fetchone()
        case "another database that is away":
            await AsyncConnection.connect("postgresql://127.0.0.1:1/none")
        case "cancelled":
            raise asyncio.CancelledError
        case "cancels its task":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case "cancels its task and returns":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        case "exits":
            raise SystemExit(1)
        case "swallows a refused statement":
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")
        case "rolls back":
            await connection.execute("ROLLBACK")
        case "commits":
            await connection.execute("COMMIT")
        case "closes the connection":
            await connection.close()
        case _:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("a row too long for its index", "ProgramLimitExceeded (SQLSTATE 54000)"),
        ("a closed cursor", "InterfaceError"),
        ("another database that is away", "OperationalError"),
        ("cancelled", "HandlerCancelled"),
        ("cancels its task", "HandlerCancelled"),
        ("cancels its task and returns", "HandlerCancelled"),
        ("exits", "SystemExit"),
        ("swallows a refused statement", "TransactionEnded"),
        ("rolls back", "TransactionEnded"),
        ("commits", "InvalidTransactionTermination (SQLSTATE 2D000)"),
        ("closes the connection", "ConnectionLost"),
        ("ends its own session", "ConnectionLost"),
    ],
)
async def test_what_a_handler_does_wrong_is_counted_and_parked_and_nobody_else_waits(
    database_url: str, bus: BusServer, how: str, error: str
) -> None:
    one = make(database_url, bus)
    one.sql("CREATE TABLE urls (url text PRIMARY KEY)")

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        if event.payload.get("bad"):
            await _fail(how, connection)
            return
        await connection.execute("INSERT INTO effects (n) VALUES (%s)", (event.payload["n"],))

    await one.publish([a_message(1, "1", b'{"n": 1, "bad": true}'), a_message(2, "2"), a_message(3, "3")])
    async with one.running():
        await one.until("SELECT n FROM effects ORDER BY n", [(2,), (3,)])
        await one.until("SELECT fingerprint, state, attempts FROM dead_letters", [("acme/1", "parked", 3)])
        await one.publish([a_message(4, "4")])
        await one.until("SELECT n FROM effects ORDER BY n", [(2,), (3,), (4,)])
    assert one.sql("SELECT error FROM dead_letters")[0][0].startswith(error)


async def test_a_consumer_that_is_cancelled_ends(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    begun = asyncio.Event()

    @one.consumer.on("*", QUICK)
    async def handle(_event: Event, _connection: object) -> None:  # pyright: ignore[reportUnusedFunction]
        begun.set()
        await asyncio.sleep(3600)

    await one.publish([a_message(1)])
    running = asyncio.create_task(one.consumer.run(one.connections, asyncio.Event()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert one.sql("SELECT count(*) FROM dead_letters") == [(0,)]


async def test_a_dead_letter_holds_no_other_tenants_event(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = Park("bad")
    await one.publish(
        [
            a_message(1, "42"),
            a_message(2, "42", tenant="globex", fingerprint="globex/2"),
            a_message(3, "42"),
        ]
    )
    async with one.running():
        await one.until(
            "SELECT tenant, state FROM dead_letters ORDER BY id", [("acme", "parked"), ("acme", "waiting")]
        )
        await one.until("SELECT n FROM effects", [(2,)])


async def test_two_tenants_may_use_one_key_at_one_time(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(1), a_message(1, tenant="globex", message_id="globex/1")])
    async with one.running():
        await one.until("SELECT n FROM effects", [(1,), (1,)])
    assert one.sql("SELECT tenant, duplicates FROM inbox ORDER BY 1") == [("acme", 0), ("globex", 0)]


async def test_a_key_used_again_after_its_window_is_an_event_of_its_own(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        await connection.execute("INSERT INTO effects (aggregate_id) VALUES (%s)", (event.payload["v"],))
        if event.payload["v"] != "third":
            raise Park

    now = datetime.now(UTC)
    uses = [("first", now - timedelta(days=16)), ("second", now - timedelta(days=8)), ("third", now)]
    # All in one batch, each delivered twice.
    await one.publish(
        [
            a_message(
                1, f"{n}", b'{"v": "%b"}' % word.encode(), created_at=at, message_id=f"{word}/{delivery}"
            )
            for delivery in range(2)
            for n, (word, at) in enumerate(uses)
        ]
    )
    async with one.running():
        await one.until("SELECT aggregate_id FROM effects", [("third",)])
        await one.until(
            "SELECT convert_from(payload, 'UTF8'), state FROM dead_letters ORDER BY id",
            [('{"v": "first"}', "parked"), ('{"v": "second"}', "parked")],
        )
        await one.until("SELECT position FROM consumer_positions", [(6,)])


HEADERS = {
    "fingerprint": "acme/7",
    "kind": "order.paid",
    "tenant": "acme",
    "aggregate-id": "9",
    "created-at": "2026-03-01T00:00:00Z",
    "publisher": "worker",
}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("created-at", "2026-11-28T00:00:00", "header created-at has no time zone"),
        ("created-at", "yesterday", "header created-at is not a time"),
        ("created-at", "infinity", "header created-at is not a time"),
        ("created-at", "0001-01-01T00:00:00+14:00", "header created-at is not a time"),
        ("created-at", "9999-12-31T23:59:59Z", "header created-at is not between the years 2000 and 3000"),
        ("aggregate-id", "x" * 9000, "header aggregate-id is not"),
        ("fingerprint", "x" * 9000, "header fingerprint is not"),
        ("tenant", "Acme", "header tenant is not"),
        ("kind", "", "header kind is not"),
    ],
)
async def test_a_message_with_an_odd_header_is_parked_with_its_reason(
    database_url: str, bus: BusServer, name: str, value: str, reason: str
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    odd = Message("events.order", "9", encode_headers({"Nats-Msg-Id": "odd", **HEADERS, name: value}), b"{}")
    await one.publish([odd, a_message(2, "b")])
    async with one.running():
        await one.until("SELECT state FROM dead_letters", [("parked",)])
        await one.until("SELECT n FROM effects", [(2,)])
    ((error,),) = one.sql("SELECT error FROM dead_letters")
    assert error.startswith(f"Unreadable: {reason}")


text = st.text(max_size=300) | st.sampled_from(
    [*HEADERS.values(), "infinity", "9999-12-31T23:59:59-14:00", "\0"]
)
names = st.sampled_from([*HEADERS, "traceparent", "replay-of"]) | st.text(max_size=20)
messages = st.builds(
    Received,
    st.integers(1, 2**62),
    st.builds("events.{}".format, text) | text,
    st.builds(lambda fine, odd: {**fine, **odd}, st.just(HEADERS), st.dictionaries(names, text, max_size=8)),
    st.binary(max_size=300)
    | st.sampled_from([b"[" * 100_000, b"9" * 5000, b'{"a": 1e999999999}', b'"\\ud800"']),
    st.floats(),
)


@given(messages)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_message_is_an_event_or_is_unreadable_and_can_be_kept(
    fuzzed: psycopg.Connection[Any], received: Received
) -> None:
    one: Envelope
    try:
        one = envelope(received)
    except Unreadable:
        one = stand_in(received, "EVENTS")
    else:
        assert one.created_at.tzinfo is not None
    with contextlib.suppress(Unreadable):
        payload_of(one)
    values = (one.fingerprint, one.tenant, one.aggregate, one.aggregate_id, one.kind, one.created_at)
    with fuzzed.transaction(force_rollback=True):
        fuzzed.execute(
            "INSERT INTO dead_letters (consumer, fingerprint, tenant, aggregate, aggregate_id, kind,"
            " created_at, headers, payload, position) VALUES ('c', %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (*values, headers_json(one.headers), one.raw, one.position),
        )
        fuzzed.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
            " VALUES ('c', %s, %s, %s, %s)",
            (one.fingerprint, one.created_at, one.tenant, one.publisher),
        )


@pytest.fixture
def fuzzed(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_an_error_is_kept_without_what_it_quotes(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        if event.payload["n"] == 1:
            await connection.execute("SELECT %s::text::integer", (event.payload["email"],))
        msg = f"no such customer: {event.payload['email']}"
        raise Park(msg)

    await one.publish(
        [a_message(n, f"{n}", b'{"n": %d, "email": "ana.secret@example.com"}' % n) for n in (1, 2)]
    )
    async with one.running():
        await one.until("SELECT state FROM dead_letters", [("parked",), ("parked",)])
    refused, parked = (error for (error,) in one.sql("SELECT error FROM dead_letters ORDER BY id"))
    assert refused.startswith("InvalidTextRepresentation (SQLSTATE 22P02) at test_failures.py:")
    assert parked.startswith("Park at test_failures.py:")
    assert "ana.secret" not in refused + parked
