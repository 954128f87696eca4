"""What the database guarantees to whoever writes into the outbox, and what the SDK says about it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from kilo.errors import BadInput
from kilo.outbox import (
    Event,
    FingerprintConflict,
    enqueue,
    enqueue_async,
    enqueue_many,
    enqueue_many_async,
    fingerprint_of,
)


def an_event(key: str = "k1", **other: Any) -> Event:
    values: dict[str, Any] = {
        "tenant": "acme",
        "aggregate": "order",
        "aggregate_id": "42",
        "kind": "order.paid",
        "payload": {"total": 12},
        "fingerprint": f"acme/{key}",
    }
    return Event(**{**values, **other})


def rows(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, fingerprint, aggregate_id FROM outbox ORDER BY id").fetchall()


def test_an_event_lives_and_dies_with_the_callers_transaction(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue(connection, an_event("kept"))
        connection.commit()
        enqueue(connection, an_event("undone"))
        connection.rollback()
    assert [row[1] for row in rows(database_url)] == ["acme/kept"]


async def test_async_connections_have_the_same(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        assert not (await enqueue_async(connection, an_event())).duplicate
        assert (await enqueue_async(connection, an_event())).duplicate
        many = await enqueue_many_async(
            connection, [an_event(f"m{n}", aggregate_id=str(n)) for n in range(5)]
        )
    assert [each.duplicate for each in many] == [False] * 5
    assert len(rows(database_url)) == 6


def test_the_same_key_and_content_is_a_no_op_that_says_so(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        first, second = enqueue(connection, an_event()), enqueue(connection, an_event())
    assert (first.duplicate, second.duplicate) == (False, True)
    assert len(rows(database_url)) == 1


def test_the_same_key_with_other_content_is_an_error(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue(connection, an_event())
        connection.commit()
        with pytest.raises(FingerprintConflict, match="acme/k1 was used for another content"):
            enqueue(connection, an_event(payload={"total": 13}))


def test_content_is_compared_by_value_not_by_spelling(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue(connection, an_event(payload='{"a": 1, "b": [1.0, "\\u00e9"]}'))
        assert enqueue(connection, an_event(payload='{"b":[1,"é"],"a":1}')).duplicate


def test_a_fingerprint_is_known_across_partitions(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue(connection, an_event())
        # As if it had been written yesterday: into another partition.
        connection.execute("UPDATE outbox SET created_at = now() - interval '1 day'")
        partitions = connection.execute("SELECT DISTINCT tableoid::regclass::text FROM outbox").fetchall()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        assert partitions == [(f"outbox_{yesterday:%Y%m%d}",)]
        assert enqueue(connection, an_event()).duplicate


def test_of_writers_that_race_with_one_key_one_wins(database_url: str) -> None:
    results: list[bool] = []
    start = threading.Barrier(8)

    def write() -> None:
        with psycopg.connect(database_url) as connection:
            start.wait()
            results.append(enqueue(connection, an_event()).duplicate)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, *[True] * 7]
    assert len(rows(database_url)) == 1


def test_writers_of_one_aggregate_take_turns_so_ids_follow_commits(database_url: str) -> None:
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        enqueue(first, an_event("first"))
        blocked = threading.Event()
        done = threading.Event()

        def write() -> None:
            blocked.set()
            enqueue(second, an_event("second"))
            second.commit()
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        blocked.wait()
        assert not done.wait(0.3)
        with psycopg.connect(database_url) as other:
            enqueue(other, an_event("other", aggregate_id="43"))
        first.commit()
        assert done.wait(10)
        thread.join()
    order = [row[1] for row in rows(database_url) if row[2] == "42"]
    assert order == ["acme/first", "acme/second"]


def test_plain_sql_of_another_language_gets_the_same(database_url: str) -> None:
    insert = (
        "INSERT INTO outbox (id, tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
        " VALUES (999, 'acme', 'order', '1', 'order.paid', %s, 'acme/raw') RETURNING id"
    )
    with psycopg.connect(database_url) as connection:
        row = connection.execute(insert, ('{"a": 1}',)).fetchone()
        assert row is not None
        assert row[0] != 999
        assert connection.execute(insert, ('{"a": 1}',)).fetchone() is None
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, ('{"a": 2}',))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("aggregate", "two words", "aggregate:"),
        ("aggregate", "dots.are.subjects", "aggregate:"),
        ("aggregate_id", "with space", "aggregate_id:"),
        ("aggregate_id", "x" * 201, "aggregate_id:"),
        ("kind", "Order>", "kind:"),
        ("fingerprint", "line\r\nbreak", "fingerprint:"),
        ("tenant", "UPPER", "tenant:"),
        ("traceparent", "nonsense", "traceparent:"),
        ("payload", {"x": "y" * 1_048_576}, "payload: at most 1 MiB"),
        ("payload", '{"a": 1, "a": 2}', "stands twice"),
    ],
)
def test_poison_never_enters(database_url: str, field: str, value: Any, said: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(BadInput, match=said):
        enqueue(connection, an_event(**{field: value}))


def test_bulk_keeps_the_order_given_and_says_what_became_of_each(database_url: str) -> None:
    events = [an_event(f"b{n}", aggregate_id=str(n % 3)) for n in range(30)]
    with psycopg.connect(database_url) as connection:
        enqueue(connection, events[4])
        results = enqueue_many(connection, events)
    assert [each.fingerprint for each in results] == [each.fingerprint for each in events]
    assert [n for n, each in enumerate(results) if each.duplicate] == [4]
    for aggregate_id in "012":
        inside = [row[1] for row in rows(database_url) if row[2] == aggregate_id]
        numbers = [int(fingerprint.removeprefix("acme/b")) for fingerprint in inside]
        assert numbers == sorted(numbers, key=lambda n: (n != 4, n))


def test_a_derived_fingerprint_is_that_of_the_canonical_form() -> None:
    one = an_event(fingerprint=None, payload='{"b": 1.0, "a": "é"}')
    other = an_event(fingerprint=None, payload={"a": "é", "b": 1})
    assert fingerprint_of(one) == fingerprint_of(other)
    assert fingerprint_of(one).startswith("acme/sha256-")
    assert fingerprint_of(an_event(fingerprint=None, payload={"a": 2})) != fingerprint_of(one)


def test_a_transaction_notifies_once_and_can_be_told_not_to(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as listener,
        psycopg.connect(database_url, autocommit=True) as writer,
    ):
        listener.execute("LISTEN outbox")
        with writer.transaction():
            for n in range(10):
                enqueue(writer, an_event(f"n{n}", aggregate_id=str(n)))
        assert len(list(listener.notifies(timeout=2, stop_after=2))) == 1
        writer.execute("SET kilo.outbox_notify = off")
        enqueue(writer, an_event("silent"))
        assert not list(listener.notifies(timeout=0.5))
