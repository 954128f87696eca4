"""What each role may do to each table of the event path, found out by trying it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from kilo.database.roles import ROLES

TABLES = (
    "outbox",
    "outbox_default",
    "outbox_fingerprints",
    "outbox_slots",
    "outbox_blocked",
    "outbox_cdc_aggregates",
    "outbox_capture_from",
    "outbox_reconciler",
    "partition_windows",
    "leases",
    "events",
    "inbox",
    "inbox_default",
    "consumer_gaps",
    "consumer_positions",
    "dead_letters",
    "dead_letter_edits",
    "projection",
    "kilo_migrations",
    "usage_files",
    "usage_requests",
    "usage_requests_default",
    "usage_request_days",
    "usage_measures",
    "usage_measures_default",
    "usage_measure_days",
    "usage_counters",
    "usage_progress",
)
ALL = "SELECT INSERT UPDATE DELETE"
PERMITTED: dict[str, dict[str, str]] = {
    "kilo_ingest": {
        "outbox": "SELECT INSERT",
        "outbox_fingerprints": "SELECT",
        "events": "SELECT INSERT",
        "outbox_cdc_aggregates": "SELECT",
    },
    "kilo_worker": {
        "outbox": "SELECT UPDATE(dequeued_at)",
        "outbox_fingerprints": "SELECT",
        "outbox_slots": "SELECT UPDATE(epoch,owner)",
        "outbox_blocked": ALL,
        "outbox_reconciler": "SELECT INSERT UPDATE",
        "consumer_gaps": "SELECT UPDATE(refilled_at)",
        "partition_windows": "SELECT",
        "leases": ALL,
        "consumer_positions": "SELECT(consumer,position,source)",
        "inbox": "SELECT(consumer,created_at,fingerprint,tenant)",
        "dead_letters": "SELECT(consumer,created_at,fingerprint,tenant)",
    },
    "kilo_consumer": {
        "inbox": ALL,
        "consumer_gaps": "SELECT INSERT UPDATE",
        "consumer_positions": ALL,
        "projection": ALL,
        "dead_letters": ALL,
        "dead_letter_edits": ALL,
        "leases": ALL,
        "events": "SELECT",
    },
    "kilo_cdc": {"outbox": "SELECT"},
    # Rotation rewrites encrypted values where they lie, and looks for those that dead letters still need.
    "kilo_rotator": {"events": "SELECT UPDATE(payload)", "dead_letters": "SELECT"},
    # Events are counted by what they are; what is in them is not read.
    "kilo_usage": {
        "events": "SELECT(kind,received_at,tenant)",
        "usage_files": "SELECT INSERT UPDATE(dropped_bytes,entries,read_to,seen_at,unreadable)",
        "usage_requests": "SELECT INSERT UPDATE(received,requests,sent)",
        "usage_request_days": "SELECT INSERT UPDATE(received,requests,sent)",
        "usage_measures": "SELECT INSERT UPDATE(amount)",
        "usage_measure_days": "SELECT INSERT UPDATE(amount)",
        "usage_counters": "SELECT INSERT UPDATE(seen_at,value) DELETE",
        "usage_progress": "SELECT UPDATE(at)",
    },
    "kilo_backup": dict.fromkeys(TABLES, "SELECT"),
}
FUNCTIONS = {
    "outbox_make_partitions()": {"kilo_worker"},
    "outbox_drop_expired()": {"kilo_worker"},
    "outbox_drop_fingerprints()": {"kilo_worker"},
    "events_drop_expired()": {"kilo_worker"},
    "inbox_make_partitions()": {"kilo_consumer"},
    "inbox_drop_expired()": {"kilo_consumer"},
    "usage_make_partitions()": {"kilo_usage"},
    "usage_drop_expired()": {"kilo_usage"},
    "usage_horizon()": {"kilo_usage"},
    "usage_stored()": {"kilo_usage"},
    "make_partitions('outbox', 1)": set[str](),
    "tune_partition('outbox_default')": set[str](),
    "drop_old_partition('inbox', 'SELECT true')": set[str](),
}


def permits(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether it fails for another reason than privileges, or not at all; nothing is kept of it."""
    with connection.transaction(force_rollback=True):
        try:
            with connection.transaction():
                connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege as error:
            # What rows it may be is not a privilege on the table.
            return "another workload's" in str(error)
        except psycopg.Error:
            return True
    return True


def verbs(connection: psycopg.Connection[Any], table: str, columns: list[str]) -> str:
    found = [
        verb
        for verb, statement in (
            ("SELECT", f"SELECT * FROM {table} LIMIT 0"),
            ("INSERT", f"INSERT INTO {table} DEFAULT VALUES"),
            ("DELETE", f"DELETE FROM {table} WHERE false"),
            ("TRUNCATE", f"TRUNCATE {table}"),
        )
        if permits(connection, statement)
    ]
    if "SELECT" not in found:
        seen = [each for each in columns if permits(connection, f"SELECT {each} FROM {table} LIMIT 0")]
        found += [f"SELECT({','.join(seen)})"] if seen else []
    changed = [
        each for each in columns if permits(connection, f"UPDATE {table} SET {each} = DEFAULT WHERE false")
    ]
    if changed:
        found.append("UPDATE" if changed == columns else f"UPDATE({','.join(changed)})")
    return " ".join(sorted(found))


def columns_of(connection: psycopg.Connection[Any], table: str) -> list[str]:
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attidentity = '' ORDER BY attname",
        (table,),
    )
    return [row[0] for row in found.fetchall()]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_to_tables_what_it_needs_and_no_more(database_url: str, role: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        columns = {table: columns_of(connection, table) for table in TABLES}
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        found = {table: verbs(connection, table, columns[table]) for table in TABLES}
    wanted = {table: " ".join(sorted(given.split())) for table, given in PERMITTED.get(role, {}).items()}
    assert {table: given for table, given in found.items() if given} == wanted


@pytest.mark.parametrize("role", ROLES)
def test_a_role_keeps_its_own_tables_partitions_alone(database_url: str, role: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        for function, roles in FUNCTIONS.items():
            assert permits(connection, f"SELECT {function}") == (role in roles), function


def test_nothing_within_its_window_is_dropped_whoever_asks(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " VALUES ('acme', 'order', '1', 'k', '{}', 'f')"
        )
        connection.execute("UPDATE outbox SET dequeued_at = now() - interval '2 days'")
        connection.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
            " VALUES ('c', 'f', now(), 'acme', 'worker')"
        )
        for role, function in (
            ("kilo_worker", "outbox_drop_expired"),
            ("kilo_consumer", "inbox_drop_expired"),
        ):
            connection.execute(f"SET ROLE {role}".encode())
            assert connection.execute(f"SELECT {function}()".encode()).fetchone() == (None,)
            connection.execute("RESET ROLE")
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_fingerprints),"
            " (SELECT count(*) FROM inbox)"
        ).fetchone()
        assert counts == (1, 1, 1)
