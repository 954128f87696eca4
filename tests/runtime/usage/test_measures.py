"""What the platform counts by itself: events once, counters through restarts, storage that is the whole."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from kilo.database.session import connect
from kilo.observe.prometheus import Sample
from kilo.usage.measures import count_counters, count_events, count_stored
from tests.runtime.usage.support import rows

_EVENT = (
    "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at)"
    " VALUES (%s, %s, 'order', '1', 'order.paid', jsonb_build_object('x', repeat('y', %s)), %s)"
)


def counted(url: str, measure: str) -> dict[str, int]:
    by_hour, by_day = (
        dict(
            rows(
                url, f"SELECT tenant, sum(amount)::bigint FROM {table} WHERE measure = '{measure}' GROUP BY 1"
            )
        )
        for table in ("usage_measures", "usage_measure_days")
    )
    assert by_hour == by_day
    return by_hour


@pytest.fixture
def admin(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE usage_progress SET at = date_trunc('hour', now()) - interval '3 hours'"
            " WHERE what <> 'installed'"
        )
        yield connection


async def test_events_are_counted_once_by_whoever_looks_how_often(database_url: str, admin: Any) -> None:
    now = datetime.now(UTC)
    for number in range(40):
        tenant = "acme" if number % 4 else "globex"
        admin.execute(_EVENT, (f"k{number}", tenant, 1, now - timedelta(minutes=4 * number + 1)))
    connections = [await connect(database_url, "test") for _ in range(3)]
    await asyncio.gather(*(count_events(each) for each in connections))
    await count_events(connections[0])
    assert counted(database_url, "events") == {"acme": 30, "globex": 10}
    for each in connections:
        await each.close()


async def test_an_event_whose_transaction_is_open_is_counted_when_it_is_there(
    database_url: str, admin: Any
) -> None:
    counting = await connect(database_url, "test")
    writing = await connect(database_url, "writer")
    async with writing.transaction():
        await writing.execute(_EVENT, ("late", "acme", 1, datetime.now(UTC)))
        began = await (await writing.execute("SELECT now()")).fetchone()
        assert began
        assert await count_events(counting) < began[0]
    assert counted(database_url, "events") == {}
    # The horizon stays ten seconds behind: as if they had passed.
    admin.execute("UPDATE events SET received_at = received_at - interval '11 s'")
    await count_events(counting)
    assert counted(database_url, "events") in ({}, {"acme": 1})
    admin.execute("UPDATE usage_progress SET at = now() - interval '1 hour' WHERE what = 'events'")
    await count_events(counting)
    assert counted(database_url, "events") == {"acme": 1}
    await counting.close()
    await writing.close()


def sample(value: float, name: str = "fle_operations_total", **labels: str) -> Sample:
    given = {"pod": "ingest-1", "instance": "i", "tenant": "acme", "operation": "encrypt", **labels}
    return Sample({"__name__": name, **given}, value)


def began(at: float, pod: str = "ingest-1") -> Sample:
    return Sample({"__name__": "process_start_time_seconds", "pod": pod, "instance": "i"}, at)


async def test_counters_are_added_by_what_they_grow(database_url: str, admin: Any) -> None:
    new = datetime.now(UTC).timestamp() + 60
    async with await connect(database_url, "test") as connection:
        # A process of before counts from now on; one that began since counts whole.
        await count_counters(connection, [sample(1_000), began(5), sample(7, pod="b"), began(new, "b")])
        assert counted(database_url, "encryptions") == {"acme": 7}
        for value in (1_010, 1_010, 1_005, 1_010):
            # Less is another server's scrape of before, not a beginning.
            await count_counters(connection, [sample(value), began(5)])
        assert counted(database_url, "encryptions") == {"acme": 17}
        await count_counters(connection, [sample(3), began(new + 60)])
        assert counted(database_url, "encryptions") == {"acme": 20}
        await count_counters(
            connection,
            [
                sample(4, "fle_data_key_cache_total", result="hit"),
                sample(1, "fle_data_key_cache_total", result="miss"),
                sample(2, "fle_kms_calls_total"),
                sample(9, tenant=""),
            ],
        )
    assert counted(database_url, "key_look_ups") == {"acme": 5}
    assert counted(database_url, "kms_calls") == {"acme": 2}


async def test_two_that_look_at_once_add_no_more_than_one(database_url: str, admin: Any) -> None:
    new = datetime.now(UTC).timestamp() + 60
    connections = [await connect(database_url, "test") for _ in range(4)]
    for value in (10, 20, 30):
        await asyncio.gather(*(count_counters(each, [sample(value), began(new)]) for each in connections))
    assert counted(database_url, "encryptions") == {"acme": 30}
    for each in connections:
        await each.close()


async def test_what_lies_there_is_shared_among_whose_it_is(database_url: str, admin: Any) -> None:
    now = datetime.now(UTC)
    for number in range(600):
        tenant, size = ("acme", 900) if number % 3 else ("globex", 100)
        admin.execute(_EVENT, (f"k{number}", tenant, size, now))
    admin.execute("ANALYZE events")
    async with await connect(database_url, "test") as connection:
        await count_stored(connection)
        await count_stored(connection)
    (whole,) = rows(database_url, "SELECT pg_total_relation_size('events')")[0]
    found = counted(database_url, "stored_byte_hours")
    assert rows(database_url, "SELECT count(DISTINCT hour) FROM usage_measures") == [(3,)]
    assert abs(sum(found.values()) - 3 * whole) <= 3
    assert found["acme"] > 3 * found["globex"]


async def test_what_has_expired_goes_and_nothing_else(database_url: str, admin: Any) -> None:
    for days in (1, 34, 36, 90):
        admin.execute(
            "INSERT INTO usage_measures VALUES (now() - %s * interval '1 day', 'acme', 'events', 'k', 1)",
            (days,),
        )
    for days in (399, 402):
        admin.execute(
            "INSERT INTO usage_measure_days VALUES (now()::date - %s, 'acme', 'events', 'k', 1)", (days,)
        )
    admin.execute("SET ROLE kilo_usage")
    while admin.execute("SELECT usage_drop_expired()").fetchone()[0]:
        pass
    assert rows(database_url, "SELECT count(*) FROM usage_measures") == [(2,)]
    assert rows(database_url, "SELECT count(*) FROM usage_measure_days") == [(1,)]
