"""What a writer puts into the outbox, or anybody onto the bus, ends no process and holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from kilo.bus import Message, encode_headers
from kilo.cdc.publication import apply_capture
from kilo.errors import BadInput
from kilo.outbox import Event, enqueue, enqueue_many
from kilo.outbox.reader import SLOTS, OutboxReader
from kilo.outbox.reconcile import Reconciler
from kilo.outbox.worker import Worker
from tests.runtime.conftest import BusServer
from tests.runtime.outbox.test_worker import eventually, waiting

FUZZ = settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
GIVEN = ("tenant", "aggregate", "aggregate_id", "kind", "payload", "fingerprint", "traceparent")
ODD_TIMES = ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC", "now() + interval '40 days'"]


def insert(**columns: str) -> sql.Composed:
    values = {
        "tenant": "'acme'",
        "aggregate": "'order'",
        "aggregate_id": "'1'",
        "kind": "'k'",
        "payload": "'{}'",
        "fingerprint": "'f'",
        **columns,
    }
    return sql.SQL("INSERT INTO outbox ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.SQL(each) for each in values.values()),  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize("when", ODD_TIMES)
def test_a_writer_does_not_set_what_the_database_sets(database_url: str, when: str) -> None:
    at = when if when.startswith("now") else f"timestamptz '{when}'"
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.CheckViolation, match="created_at is set by the database"):
            connection.execute(insert(created_at=at))
        connection.execute(insert(created_at="clock_timestamp()", id="7", publisher="'cdc'", slot="3"))
        row = connection.execute(
            "SELECT created_at < now(), id, publisher, dequeued_at, content_digest FROM outbox"
        ).fetchone()
        assert row == (True, 1, "worker", None, b"")
        connection.execute("SET ROLE kilo_ingest")
        for column in ("created_at", "id", "publisher", "slot", "dequeued_at", "payload_bytes", "message_id"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(insert(**{column: "DEFAULT", "fingerprint": "'other'"}))


@pytest.mark.parametrize("when", ODD_TIMES)
async def test_a_row_of_an_impossible_time_is_published_once_and_stops_nobody(
    database_url: str, bus: BusServer, when: str
) -> None:
    """As one from before the database set the time, or written past its triggers."""
    at = when if when.startswith("now") else f"timestamptz '{when}'"
    with psycopg.connect(database_url) as connection:
        enqueue(connection, Event("acme", "order", "1", "k", {}, "odd"))
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(f"UPDATE outbox SET created_at = {at}".encode())
        connection.execute("SET LOCAL session_replication_role = DEFAULT")
        enqueue(connection, Event("globex", "order", "1", "k", {}, "even"))
    assert await Worker(database_url, bus.connect).drain() == 2
    assert await Worker(database_url, bus.connect).drain() == 0
    assert [each.headers["fingerprint"] for each in await bus.all()] == ["odd", "even"]
    assert waiting(database_url) == 0


@pytest.fixture
def writer(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300)
_NEARLY = st.one_of(
    _TEXT,
    st.from_regex(r"[a-z0-9_.-]{0,70}\n?"),
    st.from_regex(r"[0-9a-f]{1,3}-[0-9a-f]{31,33}-[0-9a-f]{16}-.."),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


def test_whatever_is_written_is_refused_or_can_be_read_and_published(
    database_url: str, writer: psycopg.Connection[Any]
) -> None:
    """Every column that a writer gives, with anything in it, at the boundary of the table."""

    async def read() -> list[Any]:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            return await OutboxReader(connection).read(frozenset(range(SLOTS)), 10, 1 << 20)

    accepted = 0

    @FUZZ
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(GIVEN, _NEARLY)), _JSON)
    def write(odd: dict[str, str], payload: Any) -> None:
        nonlocal accepted
        row: dict[str, Any] = {
            "tenant": "acme", "aggregate": "order", "aggregate_id": "1", "kind": "k",
            "payload": Jsonb(payload), "fingerprint": "f", "traceparent": None, **odd,
        }  # fmt: skip
        writer.execute("TRUNCATE outbox, outbox_fingerprints")
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        statement = sql.SQL("INSERT INTO outbox ({}) VALUES ({})").format(
            names, sql.SQL(", ").join(sql.Placeholder() * len(row))
        )
        try:
            writer.execute(statement, list(row.values()))
        except (psycopg.errors.CheckViolation, psycopg.errors.InvalidTextRepresentation):
            return
        except psycopg.DataError:
            return
        accepted += 1
        (found,) = asyncio.run(read())
        lines = found.headers.decode().split("\r\n")
        # Ours and those of CloudEvents; no value has made a line of its own.
        assert len(lines) == 16 + 2 * (row["traceparent"] is not None)
        assert lines[2:4] == [f"kind: {row['kind']}", f"tenant: {row['tenant']}"]
        assert found.key == f"{row['tenant']}/{row['aggregate']}/{row['aggregate_id']}"

    write()
    assert accepted


HEADERS = ("fingerprint", "tenant", "publisher", "created-at", "kind", "aggregate-id", "Nats-Msg-Id")


async def test_whatever_lies_on_the_bus_ends_no_reconciler(database_url: str, bus: BusServer) -> None:
    """Every header with anything in it, at the boundary of the stream; the one honest message counts."""
    batches: list[Message] = []

    @FUZZ
    @given(
        st.fixed_dictionaries({}, optional=dict.fromkeys(HEADERS, _TEXT | st.just("cdc") | _NEARLY)),
        st.binary(max_size=50),
    )
    def collect(headers: dict[str, str], payload: bytes) -> None:
        known = {"publisher": "cdc", "tenant": "acme", "fingerprint": "x", **headers}
        known["Nats-Msg-Id"] = str(len(batches))
        batches.append(Message("events.order", "k", encode_headers(known), payload))

    collect()
    for odd in ("nul\x00", "\ud7ff", "", "a b", "x" * 5000):
        headers = {"publisher": "cdc", "tenant": "acme", "fingerprint": odd, "created-at": "infinity"}
        raw = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        batches.append(Message("events.order", "k", raw, b""))
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
    with psycopg.connect(database_url) as connection:
        enqueue(connection, Event("acme", "payment", "1", "k", {}, "honest"))
        enqueue(connection, Event("acme", "order", "1", "k", {}, "workers"))
    for name in ("honest", "workers"):
        headers = encode_headers({"publisher": "cdc", "tenant": "acme", "fingerprint": name})
        batches.append(Message("events.order", "k", headers, b""))
    client = await bus.connect()
    for message in batches:
        await client.publish([message])
    await client.close()
    stopping = asyncio.Event()
    reconciler = Reconciler(database_url, bus.connect, bus.outputs, lag_seconds=1.0)
    task = asyncio.create_task(reconciler.run(stopping))
    # A row of the worker's is not marked by what calls itself change capture.
    await eventually(lambda: task.done() or waiting(database_url) == 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        await eventually(
            lambda: (
                connection.execute("SELECT dispatched_position FROM outbox_reconciler").fetchone()
                == (len(batches),)
            )
        )
        assert connection.execute("SELECT fingerprint FROM outbox WHERE dequeued_at IS NULL").fetchall() == [
            ("workers",)
        ]
        stopping.set()
        await task
        connection.execute("SELECT pg_drop_replication_slot('outbox_cdc')")


def test_two_tenants_may_use_one_fingerprint_and_one_aggregate_id(database_url: str) -> None:
    with psycopg.connect(database_url) as acme, psycopg.connect(database_url) as globex:
        globex.execute("SET lock_timeout = '2s'")
        first = enqueue(acme, Event("acme", "order", "42", "k", {"a": 1}, "key"))
        # Neither waits for the other's open transaction.
        second = enqueue(globex, Event("globex", "order", "42", "k", {"b": 2}, "key"))
        assert not first.duplicate
        assert not second.duplicate


def test_a_transaction_takes_one_lock_a_key_and_is_refused_before_it_takes_the_servers(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue_many(connection, [Event("acme", "order", "1", "k", {"n": n}) for n in range(3000)])
        locks = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
        ).fetchone()
        assert locks == (1,)
        connection.rollback()
        with pytest.raises(BadInput, match=r"more than 3200 aggregates: split it"):
            enqueue_many(connection, [Event("acme", "order", str(n), "k", {}) for n in range(4000)])
        connection.rollback()
        enqueue_many(connection, [Event("acme", "order", str(n), "k", {}) for n in range(2500)])


def test_an_applications_own_search_path_is_its_own(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app")
        # A namesake of what the trigger uses changes nothing, in a schema or among temporary tables.
        connection.execute("CREATE TABLE app.outbox_cdc_aggregates (aggregate text)")
        connection.execute("INSERT INTO app.outbox_cdc_aggregates VALUES ('order')")
        connection.execute("SET search_path = app")
        connection.execute("CREATE TEMP TABLE outbox_fingerprints (LIKE public.outbox_fingerprints)")
        connection.execute(insert().as_string().replace("INTO outbox", "INTO public.outbox").encode())
        rows = connection.execute("SELECT publisher FROM public.outbox").fetchall()
        assert rows == [("worker",)]
        unpinned = connection.execute(
            "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace"
            " AND p.proname NOT LIKE 'fle\\_%'"
            " AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')"
            " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
        ).fetchall()
        assert unpinned == []
