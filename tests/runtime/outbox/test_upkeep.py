"""Compaction drops what is drained and no more; the gauges and the commands say how it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from typer.testing import CliRunner

from kilo.cdc.publication import apply_capture
from kilo.database.partitions import declare_windows
from kilo.outbox import Event, enqueue
from kilo.outbox.cli import app
from kilo.outbox.upkeep import Upkeep, compact, drop_events, drop_fingerprints, outbox_state
from tests.events import make_outputs
from tests.runtime.conftest import BusServer
from tests.runtime.outbox.test_worker import waiting, write

OLD = datetime.now(UTC).date() - timedelta(days=20)
DISPATCHED = "dequeued_at = now() - interval '15 days'"
"""Long enough ago that nothing can make the row be needed again."""


def old_partition(connection: psycopg.Connection[object], days_later: int = 0, parent: str = "outbox") -> str:
    """A partition of a day beyond the fingerprint window, made as the platform's own function does."""
    day = OLD + timedelta(days=days_later)
    name = f"{parent}_{day:%Y%m%d}"
    days = f"FROM ('{day}') TO ('{day + timedelta(1)}')"
    connection.execute(f"CREATE TABLE {name} PARTITION OF {parent} FOR VALUES {days}".encode())
    return name


def old_row(connection: psycopg.Connection[object], n: int, aggregate: str, days_later: int = 0) -> None:
    connection.execute(
        "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
        " VALUES ('acme', %s, '1', 'order.paid', '{}', %s)",
        (aggregate, f"acme/{n}"),
    )
    values = (OLD + timedelta(days=days_later), f"acme/{n}")
    # Without triggers, which a row that moves to another partition passes again.
    connection.execute("SET session_replication_role = replica")
    connection.execute("UPDATE outbox SET created_at = %s WHERE fingerprint = %s", values)
    connection.execute("SET session_replication_role = DEFAULT")
    connection.execute("UPDATE outbox_fingerprints SET created_at = %s WHERE fingerprint = %s", values)


async def compacted(url: str) -> str | None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return await compact(connection)


def inbox_dropped(connection: psycopg.Connection[Any]) -> str | None:
    row = connection.execute("SELECT inbox_drop_expired()").fetchone()
    assert row is not None
    return row[0]


def fingerprints_of(connection: psycopg.Connection[Any], table: str) -> set[str]:
    return {row[0] for row in connection.execute(f"SELECT fingerprint FROM {table}".encode())}


async def test_compaction_drops_drained_partitions_one_a_step_and_keeps_what_waits(
    database_url: str, bus: BusServer
) -> None:
    """A row of change capture waits until it was seen in the stream, whatever its slot has confirmed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
        first, second, third, captured = [old_partition(connection, n) for n in range(4)]
        for n, aggregate in enumerate(("order", "order", "order", "payment")):
            old_row(connection, n, aggregate, days_later=n)
        write(database_url, 3, start=10)
        connection.execute(f"UPDATE outbox SET {DISPATCHED} WHERE fingerprint IN ('acme/0', 'acme/2')")
        connection.execute(f"UPDATE outbox SET {DISPATCHED} WHERE fingerprint > 'acme/1'")
        connection.execute("UPDATE outbox SET dequeued_at = NULL WHERE fingerprint IN ('acme/1', 'acme/3')")
        assert await compacted(database_url) == first
        assert await compacted(database_url) == third
        assert await compacted(database_url) is None
        connection.execute(f"UPDATE outbox SET {DISPATCHED} WHERE publisher = 'cdc'")
        assert await compacted(database_url) == captured
        connection.execute("UPDATE outbox SET dequeued_at = now() WHERE fingerprint = 'acme/1'")
        # What was dispatched a moment ago the bus may still lose.
        assert await compacted(database_url) is None
        connection.execute(f"UPDATE outbox SET {DISPATCHED} WHERE fingerprint = 'acme/1'")
        assert await compacted(database_url) == second
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
        connection.execute("SELECT pg_drop_replication_slot('outbox_cdc')")


async def test_more_fingerprints_than_a_step_deletes_all_go_and_those_of_what_waits_stay(
    database_url: str,
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        old_partition(connection)
        old_row(connection, 1, "order")
        connection.execute(
            "INSERT INTO outbox_fingerprints (tenant, fingerprint, outbox_id, created_at, content_digest)"
            " SELECT 'acme', 'acme/old/' || n, 0, %s, '' FROM generate_series(1, 45000) n",
            (OLD - timedelta(days=2),),
        )
        write(database_url, 1, start=10)
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        assert await drop_fingerprints(connection) == 45_000
        await connection.execute("UPDATE outbox SET dequeued_at = now() WHERE fingerprint = 'acme/1'")
        assert await drop_fingerprints(connection) == 1
        left = await (await connection.execute("SELECT fingerprint FROM outbox_fingerprints")).fetchall()
    assert left == [("acme/10",)]


@pytest.mark.parametrize(("keep_days", "left"), [(None, [1, 9, 40]), (30, [1, 9]), (1, [1])])
async def test_ingests_own_rows_are_kept_as_long_as_the_stage_says(
    database_url: str, keep_days: int | None, left: list[int]
) -> None:
    """And never shorter than their fingerprints, seven days here."""
    outputs = make_outputs().outbox.model_copy(update={"events_keep_days": keep_days})
    with psycopg.connect(database_url, autocommit=True) as connection:
        declare_windows(connection, make_outputs().outbox.model_copy(update={"events_keep_days": 400}))
        declare_windows(connection, outputs)
        connection.execute(
            "INSERT INTO events (tenant, aggregate, aggregate_id, kind, payload, fingerprint, received_at)"
            " SELECT 'acme', 'order', '1', 'k', '{}', 'acme/' || days, now() - days * interval '1 day'"
            " FROM unnest(ARRAY[1, 9, 40]) AS days"
        )
        async with await AsyncConnection.connect(database_url, autocommit=True) as own:
            await own.execute("SET ROLE kilo_worker")
            assert await drop_events(own) == 3 - len(left)
        found = connection.execute("SELECT split_part(fingerprint, '/', 2)::int FROM events ORDER BY 1")
        assert [row[0] for row in found.fetchall()] == left


async def test_compaction_waits_for_nobody(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        psycopg.connect(database_url) as reader,
    ):
        name = old_partition(connection)
        reader.execute(f"SELECT count(*) FROM {name}".encode())
        assert await compacted(database_url) is None
        reader.rollback()
        assert await compacted(database_url) == name


async def test_what_lies_in_no_days_partition_goes_by_bounded_deletes(database_url: str) -> None:
    """A window after it was dispatched, however old its own time says that it is; its fingerprint with it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        old_row(connection, 1, "order")
        old_row(connection, 2, "order")
        connection.execute("UPDATE outbox SET dequeued_at = now()")
        async with await AsyncConnection.connect(database_url, autocommit=True) as own:
            assert await compact(own) is None
            assert await drop_fingerprints(own) == 0
            connection.execute(f"UPDATE outbox SET {DISPATCHED} WHERE fingerprint = 'acme/1'")
            assert await compact(own) is None
            assert fingerprints_of(connection, "outbox") == {"acme/2"}
            connection.execute(f"UPDATE outbox SET {DISPATCHED}")
            assert await compact(own) is None
            assert await drop_fingerprints(own) == 2
        assert fingerprints_of(connection, "outbox") == set()


def test_the_inbox_is_pruned_by_partitions(database_url: str) -> None:
    """By the event's own time, but never within the window of its effect: it could come a second time."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = old_partition(connection, parent="inbox")
        connection.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher, received_at)"
            " SELECT 'c', fingerprint, created_at, 't', 'worker', created_at FROM (VALUES"
            " ('old', %s::timestamptz), ('older', %s), ('new', now())) AS given (fingerprint, created_at)",
            (OLD, OLD - timedelta(days=5)),
        )
        connection.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
            " VALUES ('c', 'dated back', %s, 't', 'worker'), ('c', 'late', %s, 't', 'worker')",
            (OLD - timedelta(days=40), OLD),
        )
        assert inbox_dropped(connection) is None
        assert fingerprints_of(connection, "inbox") == {"old", "new", "dated back", "late"}
        connection.execute(
            "UPDATE inbox SET received_at = now() - interval '15 days' WHERE fingerprint <> 'new'"
        )
        assert inbox_dropped(connection) == name
        assert fingerprints_of(connection, "inbox") == {"new"}


async def test_the_state_is_what_the_database_says(database_url: str, bus: BusServer) -> None:
    write(database_url, 7)
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, bus.outputs.outbox)
        connection.execute("UPDATE outbox SET dequeued_at = now() WHERE fingerprint IN ('acme/1', 'acme/2')")
        connection.execute("INSERT INTO outbox_blocked VALUES ('acme', 'order', '1', 1, 3, 'too large')")
        with psycopg.connect(database_url) as holder:
            pid = holder.info.backend_pid
            enqueue(holder, Event("acme", "order", "9", "order.paid", {}))
            async with await AsyncConnection.connect(database_url, autocommit=True) as looking:
                state = await outbox_state(looking, bus.outputs.outbox)
            upkeep = Upkeep(database_url, bus.outputs.outbox)
            async with await AsyncConnection.connect(database_url, autocommit=True) as looking:
                await upkeep.run_once(looking)
        connection.execute("SELECT pg_drop_replication_slot('outbox_cdc')")
    assert (state.rows_waiting, state.blocked_keys, state.slot_active) == (5, 1, False)
    assert 0 < state.oldest_age_seconds < 60
    assert state.watermark_pid == pid
    assert state.slot_lag_bytes is not None
    assert state.slot_limit_bytes == 4 << 30
    gauges = {
        "outbox_rows_waiting": 5,
        "outbox_blocked_keys": 1,
        "outbox_stuck_aggregates": 1,
        "outbox_watermark_blocking_pid": state.watermark_pid,
        "replication_slot_limit_bytes": 4 << 30,
    }
    assert {name: REGISTRY.get_sample_value(name) for name in gauges} == gauges
    for name in ("outbox_oldest_undequeued_age_seconds", "outbox_watermark_age_seconds"):
        assert (REGISTRY.get_sample_value(name) or 0) > 0
    assert REGISTRY.get_sample_value("outbox_dead_tuples") is not None
    assert REGISTRY.get_sample_value("replication_slot_active", {"slot": "outbox_cdc"}) == 0


async def test_the_commands_show_drain_and_compact(
    database_url: str, bus: BusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outputs.json").write_text(bus.outputs.model_dump_json())
    monkeypatch.setenv("KILO_OUTPUTS", str(tmp_path / "outputs.json"))
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "120")
    write(database_url, 12)
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = old_partition(connection)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    import asyncio

    shown = await asyncio.to_thread(run, "status")
    assert "rows waiting" in shown
    assert "12" in shown
    assert "no slot" in shown
    assert json.loads(await asyncio.to_thread(run, "drain", "--json")) == {"published": 12}
    assert waiting(database_url) == 0
    assert json.loads(await asyncio.to_thread(run, "status", "--json"))["rows_waiting"] == 0
    assert json.loads(await asyncio.to_thread(run, "compact", "--json")) == {"dropped": [name]}
    assert await asyncio.to_thread(run, "compact") == "dropped nothing\n"
