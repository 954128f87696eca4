"""Events over asyncpg: with their change or not at all, and mistakes said as over psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from kilo.errors import BadInput
from kilo.outbox import Event, FingerprintConflict
from kilo.outbox.asyncpg_connection import enqueue, enqueue_many


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def an_event(n: int, aggregate_id: str = "1", **changes: Any) -> Event:
    given: dict[str, Any] = {
        "tenant": "acme",
        "aggregate": "order",
        "aggregate_id": aggregate_id,
        "kind": "order.paid",
        "payload": {"n": n, "big": 2**70, "text": "ä🚚"},
        "fingerprint": f"f{n}",
        **changes,
    }
    return Event(**given)


async def rows(connection: Any) -> list[tuple[Any, ...]]:
    found = await connection.fetch("SELECT fingerprint, payload::text FROM outbox ORDER BY id")
    return [tuple(each) for each in found]


async def test_an_event_is_there_with_its_change_or_not_at_all(connection: Any) -> None:
    async with connection.transaction():
        done = await enqueue(connection, an_event(1))
        assert done.id is not None
        assert (await enqueue(connection, an_event(1))).duplicate
    transaction = connection.transaction()
    await transaction.start()
    await enqueue(connection, an_event(2))
    await transaction.rollback()
    assert [(name, text.count("1180591620717411303424")) for name, text in await rows(connection)] == [
        ("f1", 1)
    ]


async def test_outside_of_a_transaction_it_is_refused(connection: Any) -> None:
    with pytest.raises(BadInput, match=r"connection.transaction\(\)"):
        await enqueue(connection, an_event(1))
    assert await rows(connection) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aggregate": "Order Lines"}, "aggregate: one token"),
        ({"tenant": "acme inc"}, "tenant: a DNS label"),
        ({"payload": {"n": float("nan")}}, "payload/n: "),
        ({"payload": {"text": "x" * 1_100_000}}, "payload: at most 1 MiB"),
    ],
)
async def test_a_mistake_is_named_and_no_value_is_quoted(
    changes: dict[str, Any], reason: str, connection: Any
) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        async with connection.transaction():
            await enqueue(connection, an_event(1, **changes))
    assert "xxx" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_a_fingerprint_of_another_content_is_a_conflict(connection: Any) -> None:
    async with connection.transaction():
        await enqueue(connection, an_event(1))
    with pytest.raises(FingerprintConflict):
        async with connection.transaction():
            await enqueue(connection, an_event(1, payload={"n": 2}))


async def test_many_in_opposite_orders_do_not_deadlock(database_url: str) -> None:
    async with asyncpg.create_pool(database_url, min_size=2, max_size=2) as pool:

        async def write(first: int, step: int) -> list[int | None]:
            async with pool.acquire() as connection, connection.transaction():
                events = [an_event(first + n, str(n)) for n in range(40)][::step]
                return [each.id for each in await enqueue_many(connection, events)]

        found = await asyncio.gather(write(0, 1), write(100, -1))
        async with pool.acquire() as connection:
            assert len(await rows(connection)) == 80
    assert all(one is not None for each in found for one in each)


async def test_of_many_none_is_written_when_one_is_wrong(connection: Any) -> None:
    async with connection.transaction():
        with pytest.raises(BadInput):
            await enqueue_many(connection, [an_event(1), an_event(2, payload={1: 2})])
    assert await rows(connection) == []
