"""Nothing that a handler, a message or another tenant does stops the consumer or holds others up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from kilo.bus import Message, Received, encode_headers, event_headers
from kilo.consumer import Consumer, Event, Park, Statements
from kilo.consumer.event import Unreadable, envelope
from kilo.consumer.inbox import stand_in, storable
from kilo.deadletter import DeadLetters, Filter
from kilo.fle.formats import RowId
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import QUICK, Running, make

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def message(
    n: int,
    tenant: str = "acme",
    aggregate_id: str = "1",
    *,
    fingerprint: str | None = None,
    created_at: datetime = NOW,
    payload: bytes | None = None,
    message_id: str | None = None,
) -> Message:
    key = fingerprint or f"{tenant}/{n}"
    headers = event_headers(
        message_id=message_id or f"{tenant}/{key}/{created_at:%s}/{n}",
        fingerprint=key,
        kind="order.paid",
        tenant=tenant,
        aggregate_id=aggregate_id,
        created_at=created_at,
        publisher="worker",
    )
    return Message("events.order", aggregate_id, encode_headers(headers), payload or b'{"n": %d}' % n)


Handler = Callable[[AsyncConnection[Any]], Awaitable[object]]


async def _row_too_long_for_an_index(connection: AsyncConnection[Any]) -> None:
    await connection.execute("CREATE TEMP TABLE urls (url text PRIMARY KEY) ON COMMIT DROP")
    await connection.execute(
        "INSERT INTO urls SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n"
    )


async def _closed_cursor(connection: AsyncConnection[Any]) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT 1")
    await cursor.fetchone()


async def _another_database(_connection: AsyncConnection[Any]) -> None:
    await AsyncConnection.connect("postgresql://127.0.0.1:1/none", connect_timeout=2)


async def _lock_timeout(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SET LOCAL lock_timeout = '10ms'")
    await connection.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")


async def _cancelled(_connection: AsyncConnection[Any]) -> None:
    raise asyncio.CancelledError


async def _exits(_connection: AsyncConnection[Any]) -> None:
    raise SystemExit(3)


async def _commits(connection: AsyncConnection[Any]) -> None:
    await connection.execute("COMMIT")


async def _swallows_an_error(connection: AsyncConnection[Any]) -> None:
    try:
        await connection.execute("SELECT 1 / 0")
    except psycopg.Error:
        return


async def _closes_the_connection(connection: AsyncConnection[Any]) -> None:
    await connection.close()


async def _ends_its_own_session(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    "misdeed",
    [
        _row_too_long_for_an_index,
        _closed_cursor,
        _another_database,
        _lock_timeout,
        _cancelled,
        _exits,
        _commits,
        _swallows_an_error,
        _closes_the_connection,
        _ends_its_own_session,
    ],
    ids=lambda each: each.__name__.strip("_"),
)
async def test_a_handlers_misdeed_is_its_own_failure(
    database_url: str, bus: BusServer, misdeed: Handler
) -> None:
    one = make(database_url, bus)
    one.sql("CREATE TABLE held ()")

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        if event.payload["n"] == 1:
            await misdeed(connection)
        await connection.execute("INSERT INTO effects (n) VALUES (%s)", (event.payload["n"],))

    await one.publish([message(1), message(2, "globex"), message(3, "initech")])
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE held IN ACCESS SHARE MODE")
        async with one.running():
            await one.until("SELECT n FROM effects WHERE n > 1 ORDER BY 1", [(2,), (3,)])
            await one.until("SELECT state, fingerprint FROM dead_letters", [("parked", "acme/1")])
    assert one.sql("SELECT position FROM consumer_positions") == [(3,)]


async def test_a_writer_that_ends_the_session_is_told_from_the_others_of_its_batch(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)

    @one.consumer.writes("*", replace(QUICK, attempts=1))
    def write(event: Event, statements: Statements) -> None:  # pyright: ignore[reportUnusedFunction]
        if event.payload["n"] == 3:
            statements.add("SELECT pg_terminate_backend(pg_backend_pid())", ())
        statements.add("INSERT INTO effects (n) VALUES (%s)", (event.payload["n"],))

    await one.publish([message(n, "acme", str(n)) for n in range(6)])
    async with one.running():
        await one.until(
            "SELECT fingerprint, state, split_part(error, ' ', 1) FROM dead_letters",
            [("acme/3", "parked", "DatabaseLost")],
        )
        await one.until("SELECT n FROM effects ORDER BY 1", [(0,), (1,), (2,), (4,), (5,)])


async def test_a_tenants_parked_event_holds_no_other_tenants(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = Park("bad")
    await one.publish([message(1, "acme", "42"), message(2, "globex", "42"), message(3, "acme", "42")])
    async with one.running():
        await one.until("SELECT n FROM effects", [(2,)])
        await one.until(
            "SELECT tenant, fingerprint, state FROM dead_letters ORDER BY id",
            [("acme", "acme/1", "parked"), ("acme", "acme/3", "waiting")],
        )


@pytest.mark.parametrize("together", [True, False])
async def test_a_key_used_again_after_its_window_is_an_event_of_its_own(
    database_url: str, bus: BusServer, together: bool
) -> None:
    one = make(database_url, bus)
    seen: list[str] = []

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, _connection: object) -> None:  # pyright: ignore[reportUnusedFunction]
        if event.payload["v"] == "first":
            msg = "bad"
            raise Park(msg)
        seen.append(event.payload["v"])

    first = message(1, fingerprint="acme/K", created_at=NOW - timedelta(days=8), payload=b'{"v": "first"}')
    second = message(2, fingerprint="acme/K", payload=b'{"v": "second"}')
    await one.publish([first, second] if together else [first])
    async with one.running():
        await one.until("SELECT state FROM dead_letters WHERE state = 'parked'", [("parked",)])
        if not together:
            await one.publish([second])
        await one.until("SELECT state FROM dead_letters ORDER BY id", [("parked",), ("waiting",)])
        with psycopg.connect(database_url, autocommit=True) as connection:
            letters = DeadLetters(connection)
            assert letters.discard(next(letters.find(Filter())))
        await one.until("SELECT count(*) FROM inbox WHERE publisher <> 'discarded'", [(1,)])
    assert seen == ["second"]


async def test_two_tenants_may_use_one_key_at_the_same_time(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([message(1, tenant, fingerprint="same/1") for tenant in ("acme", "globex")])
    async with one.running():
        await one.until("SELECT count(*) FROM effects", [(2,)])
    assert one.sql("SELECT sum(duplicates) FROM inbox") == [(0,)]


@pytest.mark.parametrize(
    "created_at",
    [
        "2026-11-28T00:00:00",
        "yesterday",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "infinity",
        "",
    ],
)
async def test_a_message_with_a_bad_time_is_parked_and_holds_nobody(
    database_url: str, bus: BusServer, created_at: str
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    good = message(1)
    bad = good.headers.replace(b"acme/1", b"acme/7").replace(
        f"created-at: {NOW:%Y-%m-%dT%H:%M:%S.%fZ}".encode(), f"created-at: {created_at}".encode()
    )
    await one.publish([Message("events.order", "1", bad, b'{"n": 7}'), good])
    async with one.running():
        await one.until("SELECT n FROM effects", [(1,)])
    ((tenant, state, error),) = one.sql("SELECT tenant, state, error FROM dead_letters")
    assert (tenant, state) == ("unknown", "parked")
    assert "header created-at" in error


HEADERS = ("fingerprint", "kind", "tenant", "aggregate-id", "created-at", "publisher", "traceparent", "x")
TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "acme", "\x00", "a" * 5000, "2026-03-01T12:00:00Z", "order.paid", "🚚"]),
)


class Revealing:
    """Encrypts nothing, and says that ``email`` is a sensitive field."""

    async def protected_fields(self, tenant: str) -> frozenset[str]:
        return frozenset({"email"})

    revealed_fields = protected_fields

    async def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str) -> str:
        raise NotImplementedError

    async def reveal_value(self, tenant: str, field: str, row_id: RowId, value: object) -> object:
        return value


@pytest.mark.parametrize("way", ["statement", "park", "error", "writer"])
async def test_no_decrypted_value_is_stored_with_a_failure(
    database_url: str, bus: BusServer, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = make(database_url, bus)

    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:
        email = event.payload["email"]
        if way == "statement":
            await connection.execute("SELECT %s::text::integer", (email,))
        msg = f"nobody is called {email}"
        raise Park(msg) if way == "park" else ValueError(msg)

    def write(event: Event, statements: Statements) -> None:
        statements.add("SELECT %s::text::integer", (event.payload["email"],))

    if way == "writer":
        one.consumer.writes("*", replace(QUICK, attempts=1))(write)
    else:
        one.consumer.on("*", replace(QUICK, attempts=1))(handle)
    await one.publish([message(1, payload=b'{"n": 1, "email": "ana.secret@example.com"}')])
    async with one.running(cipher=Revealing()):
        await one.until("SELECT state FROM dead_letters", [("parked",)])
    ((error,),) = one.sql("SELECT error FROM dead_letters")
    assert "ana.secret" not in error + caplog.text
    expected = {
        "statement": "InvalidTextRepresentation (SQLSTATE 22P02) at test_hostile.py",
        "park": "Park: nobody is called … at test_hostile.py",
        "error": "ValueError at test_hostile.py",
        "writer": "InvalidTextRepresentation (SQLSTATE 22P02) at statements.py",
    }
    assert error.startswith(expected[way])


@settings(max_examples=300, deadline=None)
@given(
    headers=st.dictionaries(st.one_of(st.sampled_from(HEADERS), st.text(max_size=20)), TEXT, max_size=100),
    subject=st.one_of(st.just("events.order"), st.text(max_size=60)),
    payload=st.binary(max_size=200),
)
def test_whatever_is_on_the_bus_is_an_event_or_unreadable(
    headers: dict[str, str], subject: str, payload: bytes
) -> None:
    received = Received(7, subject, headers, payload, 1.0)
    try:
        one = envelope(received)
    except Unreadable:
        one = stand_in(received, "EVENTS")
    assert "\x00" not in "".join((one.fingerprint, one.tenant, one.aggregate, one.aggregate_id, one.kind))
    assert one.created_at.tzinfo is not None
    stored = storable(headers)
    assert "\x00" not in "".join([*stored, *stored.values()])
    assert sum(len(name) + len(value) for name, value in stored.items()) <= 64 * 2 * 4096


ODD = st.tuples(st.dictionaries(st.sampled_from(HEADERS), TEXT, max_size=8), st.binary(max_size=50))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.lists(ODD, min_size=1, max_size=20))
def test_whatever_is_on_the_bus_an_event_behind_it_is_handled(
    database_url: str, bus: BusServer, bad: list[tuple[dict[str, str], bytes]]
) -> None:
    asyncio.run(_handled_behind(database_url, bus, bad))


async def _handled_behind(database_url: str, bus: BusServer, bad: list[tuple[dict[str, str], bytes]]) -> None:
    one = Running(database_url, bus, Consumer("test", QUICK))
    one.sql("CREATE TABLE IF NOT EXISTS effects (serial bigserial, n int, aggregate_id text)")
    one.sql("TRUNCATE effects, dead_letters, inbox CASCADE")
    one.handle_with_effects()
    run = uuid.uuid4().hex
    valid = {
        "fingerprint": "acme/2",
        "kind": "order.paid",
        "tenant": "acme",
        "aggregate-id": "9",
        "created-at": "2026-03-01T12:00:00Z",
    }
    odd = [
        Message("events.order", "9", encode_headers({**valid, **headers, "Nats-Msg-Id": f"{run}/{n}"}), body)
        for n, (headers, body) in enumerate(bad)
    ]
    await one.publish([*odd, message(1, message_id=f"{run}/good")])
    async with one.running():
        await one.until("SELECT count(*) FROM effects WHERE aggregate_id = '1'", [(1,)])
