"""The order in which waiting rows are read, whatever their writers do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from kilo.outbox import Event, enqueue
from kilo.outbox.reader import SLOTS, OutboxReader

ALL = frozenset(range(SLOTS))
MANY = 1 << 30


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[OutboxReader]:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield OutboxReader(connection)


def write(connection: psycopg.Connection[object], key: str, aggregate_id: str) -> None:
    with connection.transaction() if connection.autocommit else nullcontext():
        enqueue(connection, Event("acme", "order", aggregate_id, "order.paid", {"k": key}, f"acme/{key}"))


async def names(reader: OutboxReader, most: int = 100) -> list[str]:
    rows = await reader.read(ALL, most, MANY)
    return [row.headers.decode().split("\r\n")[1].partition("/")[2] for row in rows]


async def test_a_late_commit_below_the_cursor_is_read(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as late, psycopg.connect(database_url, autocommit=True) as quick:
        write(late, "late", "1")
        write(quick, "early", "2")
        assert await names(reader) == ["early"]
        assert await names(reader) == []
        late.commit()
        assert await names(reader) == ["late"]
        assert await names(reader) == []


async def test_a_writer_above_the_snapshots_xmax_is_read(reader: OutboxReader, database_url: str) -> None:
    """It has the smaller row id and the larger transaction id, so no snapshot lists it while it is open."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute("SELECT pg_current_xact_id()")
        second.execute("SELECT pg_current_xact_id()")
        write(second, "smaller-row-id", "1")
        write(first, "larger-row-id", "2")
        first.commit()
        assert await names(reader) == ["larger-row-id"]
        second.commit()
        assert await names(reader) == ["smaller-row-id"]


async def test_the_very_first_row_is_read_when_it_commits_late(
    reader: OutboxReader, database_url: str
) -> None:
    assert await names(reader) == []
    with psycopg.connect(database_url) as late, psycopg.connect(database_url, autocommit=True) as quick:
        write(late, "first", "1")
        write(quick, "second", "2")
        assert await names(reader) == ["second"]
        late.commit()
        assert await names(reader) == ["first"]


async def test_a_transaction_that_stays_open_long_is_still_read(
    reader: OutboxReader, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.outbox.reader._YOUNG_SECONDS", 0.0)
    with psycopg.connect(database_url) as late, psycopg.connect(database_url, autocommit=True) as quick:
        write(late, "late", "1")
        for n in range(5):
            write(quick, f"q{n}", "2")
            assert await names(reader) == [f"q{n}"]
        late.commit()
        write(quick, "after", "1")
        assert await names(reader) == ["late", "after"]


async def test_a_rolled_back_transaction_leaves_no_trace(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as undone, psycopg.connect(database_url, autocommit=True) as quick:
        write(undone, "undone", "1")
        write(quick, "kept", "2")
        assert await names(reader) == ["kept"]
        undone.rollback()
        assert await names(reader) == []


async def test_a_held_xmin_holds_nobody_up(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as held, psycopg.connect(database_url, autocommit=True) as quick:
        held.execute("SELECT pg_current_xact_id()")
        write(quick, "passes", "1")
        assert await names(reader) == ["passes"]


async def test_order_holds_where_a_horizon_of_transaction_ids_would_turn_it(
    reader: OutboxReader, database_url: str
) -> None:
    """The writer of the later row has the smaller transaction id, and a third stands between them."""
    with (
        psycopg.connect(database_url) as later,
        psycopg.connect(database_url) as between,
        psycopg.connect(database_url) as earlier,
    ):
        for connection in (later, between, earlier):
            connection.execute("SELECT pg_current_xact_id()")
        write(earlier, "first", "1")
        earlier.commit()
        write(later, "second", "1")
        later.commit()
        below = between.execute(
            "SELECT fingerprint FROM outbox WHERE xmin::text::bigint"
            " < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        ).fetchall()
        assert below == [("acme/second",)]
        assert await names(reader) == ["first", "second"]


async def test_a_batch_smaller_than_what_waits_loses_nothing(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for n in range(25):
            write(connection, f"n{n}", str(n % 4))
    found = [name for _ in range(4) for name in await names(reader, most=7)]
    assert found == [f"n{n}" for n in range(25)]


async def test_late_commits_while_a_backlog_is_read_keep_their_order(
    reader: OutboxReader, database_url: str
) -> None:
    with psycopg.connect(database_url) as late, psycopg.connect(database_url, autocommit=True) as quick:
        for n in range(10):
            write(quick, f"n{n}", "a")
        write(late, "late", "b")
        for n in range(10, 20):
            write(quick, f"n{n}", "a")
        found = await names(reader, most=6)
        late.commit()
        write(quick, "behind", "b")
        for _ in range(6):
            found += await names(reader, most=6)
    assert sorted(found) == sorted([*(f"n{n}" for n in range(20)), "late", "behind"])
    assert found.index("late") < found.index("behind")
    assert [name for name in found if name.startswith("n")] == [f"n{n}" for n in range(20)]


async def test_rows_that_were_let_go_are_read_again(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for n in range(4):
            write(connection, f"n{n}", str(n))
    rows = await reader.read(ALL, 10, MANY)
    reader.requeue([rows[1].id, rows[2].id])
    assert await names(reader) == ["n1", "n2"]


async def test_rows_that_are_marked_while_a_read_is_under_way_are_not_read_again(
    reader: OutboxReader, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for n in range(5):
            write(connection, str(n), "1")
        rows = await reader.read(ALL, 3, MANY)
        fetch = reader._fetch  # pyright: ignore[reportPrivateUsage]

        async def marked_meanwhile(*arguments: Any) -> list[Any]:
            found = await fetch(*arguments)
            connection.execute("UPDATE outbox SET dequeued_at = now() WHERE id <= 3")
            reader.drop([row.id for row in rows])
            return found

        monkeypatch.setattr(reader, "_fetch", marked_meanwhile)
        reader.restart()
        assert await names(reader) == ["3", "4"]
        monkeypatch.undo()
        reader.rewind(1)
        connection.execute("UPDATE outbox SET dequeued_at = NULL WHERE id = 2")
        assert await names(reader) == ["1"]


async def test_a_sequence_that_begins_anew_is_noticed(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT setval('outbox_id_seq', 1000)")
        write(connection, "large", "1")
        assert await names(reader) == ["large"]
        connection.execute("ALTER SEQUENCE outbox_id_seq RESTART WITH 1")
        write(connection, "small", "1")
        assert await names(reader) == ["small"]


async def test_only_rows_of_the_slots_asked_for_are_read(reader: OutboxReader, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for n in range(40):
            write(connection, f"n{n}", str(n))
        connection.commit()
        slots = {row[0] for row in connection.execute("SELECT DISTINCT slot FROM outbox").fetchall()}
        half = frozenset(sorted(slots)[: len(slots) // 2])
        rows = connection.execute("SELECT id FROM outbox WHERE slot = ANY(%s)", (sorted(half),)).fetchall()
    assert [row.id for row in await reader.read(half, 100, MANY)] == sorted(row[0] for row in rows)
