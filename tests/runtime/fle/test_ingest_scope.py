"""A retry is answered as the first request was, whatever became of the tenant's encrypted fields between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from kilo.fle import AsyncFieldCipher
from kilo.fle.formats import is_encrypted
from kilo.ingest.request import IncomingEvent
from kilo.ingest.store import EventStore
from kilo.outbox import strict_json
from kilo.web.problem import Problem

from .conftest import Stage
from .test_scope import configured

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    made: AsyncConnectionPool[Any] = AsyncConnectionPool(
        database_url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
    )
    async with made:
        yield made


def store_of(stage: Stage, pool: AsyncConnectionPool[Any]) -> EventStore:
    return EventStore(pool, AsyncFieldCipher(stage.cipher("events")))


async def store(made: EventStore, event: IncomingEvent) -> bool:
    [result] = await made.store_each([await made.row_of(event, TRACE)])
    if isinstance(result, Problem):
        raise result
    return result


def an_event(email: str = "ana@example.com") -> IncomingEvent:
    payload = {"owner": [{"email": email}], "n": 1}
    return IncomingEvent("gold", "order", "1", "order.paid", payload, strict_json.write(payload), "gold/K")


def stored_email(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT payload #>> '{owner,0,email}' FROM events").fetchone()
    assert row
    return row[0]


@pytest.mark.parametrize(("before", "after"), [((), ("email",)), (("email",), ()), (("email",), ("phone",))])
async def test_a_retry_over_a_change_of_encrypted_fields_is_the_same_event(
    stage: Stage, pool: AsyncConnectionPool[Any], before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert await store(store_of(configured(stage, *before), pool), an_event()) is True
    assert is_encrypted(stored_email(stage.url)) is bool(before)
    assert await store(store_of(configured(stage, *after), pool), an_event()) is False
    with pytest.raises(Problem) as caught:
        await store(store_of(configured(stage, *after), pool), an_event("eve@example.com"))
    assert caught.value.status == 422


async def test_another_plain_value_that_looks_like_base64_is_another_event(
    stage: Stage, pool: AsyncConnectionPool[Any]
) -> None:
    assert await store(store_of(configured(stage), pool), an_event("abcd"))
    with pytest.raises(Problem) as caught:
        await store(store_of(configured(stage, "email"), pool), an_event("abce"))
    assert caught.value.status == 422
