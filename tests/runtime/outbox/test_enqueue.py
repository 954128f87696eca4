"""What the database guarantees to whoever writes into the outbox, and what the SDK says about it."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from kilo.errors import BadInput
from kilo.outbox import (
    Event,
    FingerprintConflict,
    content_fingerprint,
    enqueue,
    enqueue_async,
    enqueue_many,
    enqueue_many_async,
    strict_json,
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
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("UPDATE outbox SET created_at = now() - interval '1 day'")
        connection.execute("SET LOCAL session_replication_role = DEFAULT")
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


def test_writers_of_two_tenants_do_not_wait_for_each_other(database_url: str) -> None:
    """Though both have an aggregate of the same name and id."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        enqueue(first, an_event("first"))
        # What has to wait for the first, which does not commit meanwhile, ends in an error.
        second.execute("SET lock_timeout = '5s'")
        enqueue(second, an_event("second", tenant="globex", fingerprint="globex/second"))
        second.commit()
        first.commit()
    assert {row[1] for row in rows(database_url)} == {"acme/first", "globex/second"}


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
        ("tenant", None, "tenant: .*not NoneType"),
        ("aggregate_id", 42, "aggregate_id: .*not int"),
        ("aggregate_id", "a\x00b", "aggregate_id:"),
        ("aggregate_id", "\ud800", "aggregate_id:"),
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


def test_without_a_key_each_event_is_one_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for kind in ("switch.on", "switch.off", "switch.on"):
            enqueue(connection, Event("acme", "switch", "1", kind, {}))
        again = Event("acme", "switch", "1", "switch.off", {})
        assert [enqueue(connection, again).duplicate for _ in range(2)] == [False, True]
        kinds = connection.execute("SELECT kind FROM outbox ORDER BY id").fetchall()
    assert [kind for (kind,) in kinds] == ["switch.on", "switch.off", "switch.on", "switch.off"]
    before, after = (Event("acme", "switch", "1", "switch.on", {}).fingerprint for _ in range(2))
    assert (UUID(before).version, UUID(before).variant) == (7, "specified in RFC 4122")
    assert abs((UUID(before).int >> 80) / 1000 - datetime.now(UTC).timestamp()) < 60
    assert before != after


def test_a_fingerprint_of_the_content_is_that_of_the_canonical_form(database_url: str) -> None:
    def of(payload: Any) -> str:
        return content_fingerprint("acme", "order", "42", "order.paid", payload)

    assert of('{"b": 1.0, "a": "é"}') == of({"a": "é", "b": 1})
    assert of({"a": 2}) != of({"a": 3})
    assert of({}).startswith("acme/sha256-")
    with psycopg.connect(database_url) as connection:
        assert not enqueue(connection, an_event(fingerprint=of({"total": 12}))).duplicate
        assert enqueue(connection, an_event(fingerprint=of({"total": 12}))).duplicate
    with pytest.raises(BadInput, match="payload/a: an object is not JSON"):
        of({"a": object()})


def test_a_key_that_is_missing_is_not_taken_for_none_given(database_url: str) -> None:
    with (
        psycopg.connect(database_url) as connection,
        pytest.raises(BadInput, match=r"fingerprint: .*NoneType"),
    ):
        enqueue(connection, an_event(fingerprint=None))


class Colour(IntEnum):
    RED = 3


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _many_times_itself() -> Any:
    value: Any = "x"
    for _ in range(60):
        value = [value, value]
    return value


UNREADABLE = [
    pytest.param(_nested(101), "nested deeper than 100", id="deep"),
    pytest.param(_many_times_itself(), "more than", id="shared"),
    pytest.param({"n": 10**500}, "payload/n: a number", id="large"),
    pytest.param({"n": -(10**5000)}, "payload/n: a number", id="larger than str() takes"),
    pytest.param({"n": Decimal("1E+450")}, "payload/n: a number", id="exponent"),
    pytest.param({"n": Decimal("1E+400")}, "payload/n: a number", id="written out"),
    pytest.param('{"n": -1e-400}', "a number has more than 400 digits", id="text, written out"),
    pytest.param({"n": Decimal("1." + "0" * 400)}, "payload/n: a number", id="precise"),
    pytest.param({"n": Decimal("Infinity")}, "payload/n: a number", id="infinite"),
    pytest.param({"n": Decimal("sNaN")}, "payload/n: a number", id="signalling"),
    pytest.param({"n": float("nan")}, "payload/n: a number", id="nan"),
    pytest.param({"a": {"secret\x00": 1}}, r"payload/a: holds U\+0000", id="nul"),
    pytest.param({"a": "secret\ud800"}, "payload/a: holds half a surrogate", id="surrogate"),
    pytest.param({"a": {1: "secret"}}, "payload/a: a key is an int", id="key"),
    pytest.param({"at": date(2026, 1, 2)}, "payload/at: a date is not JSON; give text", id="date"),
    pytest.param({"a": b"secret"}, "payload/a: a bytes is not JSON", id="bytes"),
    pytest.param({"a": {"secret"}}, "payload/a: a set is not JSON", id="set"),
    pytest.param('{"a": "secret', "payload: not JSON", id="text"),
    pytest.param("[" * 200 + "]" * 200, "nested deeper than 100", id="deep text"),
]


@pytest.mark.parametrize(("payload", "said"), UNREADABLE)
@pytest.mark.parametrize("digest", [None, b"\x00" * 32])
def test_what_no_consumer_could_read_is_refused(
    database_url: str, payload: Any, said: str, digest: bytes | None
) -> None:
    event = an_event(payload=payload, content_digest=digest)
    with psycopg.connect(database_url) as connection:
        for write in (lambda: enqueue(connection, event), lambda: enqueue_many(connection, [event])):
            with pytest.raises(BadInput, match=said) as refused:
                write()
            assert "secret" not in f"{refused.value} {refused.value.__cause__!r}"
        # Refused before it was sent: the transaction goes on.
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_what_is_accepted_reads_back_the_same(database_url: str) -> None:
    numbers = [
        10**399,
        -(10**399),
        Decimal("1E+399"),
        Decimal("-1E-399"),
        Decimal("-0.0"),
        1e308,
        Colour.RED,
        5e-324,
    ]
    payload = {"deep": _nested(98), "numbers": numbers, "pair": ("é\u2028\ud7ff", None), "": {}}
    with psycopg.connect(database_url) as connection:
        enqueue(connection, an_event(payload=payload))
        stored = connection.execute("SELECT payload::text FROM outbox").fetchone()
    assert stored is not None
    strict_json.check(payload)
    assert strict_json.canonical(strict_json.parse(stored[0])) == strict_json.canonical(payload)


async def test_the_connections_row_factory_does_not_matter(database_url: str) -> None:
    with psycopg.Connection[Any].connect(database_url, row_factory=dict_row) as connection:
        assert not enqueue(connection, an_event()).duplicate
        assert [each.duplicate for each in enqueue_many(connection, [an_event(), an_event("k2")])] == [
            True,
            False,
        ]
        assert enqueue_many(connection, []) == []
    async with await psycopg.AsyncConnection[Any].connect(database_url, row_factory=dict_row) as other:
        assert (await enqueue_async(other, an_event())).duplicate
        assert [each.duplicate for each in await enqueue_many_async(other, [an_event("k3")])] == [False]
        assert await enqueue_many_async(other, []) == []


async def test_a_connection_that_commits_each_statement_is_refused(database_url: str) -> None:
    said = "in autocommit mode and in no transaction"
    with psycopg.connect(database_url, autocommit=True) as connection:
        for write in (
            lambda: enqueue(connection, an_event()),
            lambda: enqueue_many(connection, [an_event()]),
        ):
            with pytest.raises(BadInput, match=said):
                write()
        with connection.pipeline(), pytest.raises(BadInput, match=said):
            enqueue(connection, an_event())
        with connection.transaction(), connection.pipeline():
            connection.execute("SELECT 1")
            enqueue(connection, an_event("a"))
        with connection.pipeline(), connection.transaction():
            enqueue_many(connection, [an_event("b")])
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        with pytest.raises(BadInput, match=said):
            await enqueue_async(other, an_event())
        with pytest.raises(BadInput, match=said):
            await enqueue_many_async(other, [an_event()])
        async with other.transaction():
            await enqueue_async(other, an_event("c"))
    assert [row[1] for row in rows(database_url)] == ["acme/a", "acme/b", "acme/c"]


def test_no_error_holds_what_was_to_be_written(database_url: str) -> None:
    large = {"contact": "ana@example.com" * 100_000}
    with psycopg.connect(database_url) as connection, pytest.raises(BadInput) as refused:
        enqueue(connection, an_event(payload=large))
    # PostgreSQL's own error quotes the row.
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


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
        with writer.transaction():
            enqueue(writer, an_event("silent"))
        assert not list(listener.notifies(timeout=0.5))
