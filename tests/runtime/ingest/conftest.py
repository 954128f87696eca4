"""The entrance over a real database, as a client meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from kilo.health import Health
from kilo.ingest.app import make_app
from kilo.ingest.store import EventStore
from tests.events import make_outputs
from tests.runtime.consumer.support import Plain


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    made: AsyncConnectionPool[Any] = AsyncConnectionPool(
        database_url,
        min_size=1,
        max_size=8,
        open=False,
        kwargs={"autocommit": True, "options": "-c lock_timeout=250ms"},
    )
    async with made:
        yield made


@pytest.fixture
async def client(pool: AsyncConnectionPool[Any]) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(make_outputs(), EventStore(pool, Plain()), Health())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingest") as made:
        yield made


def stored(url: str) -> tuple[int, int]:
    """How many events and how many outbox rows there are."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM outbox)"
        ).fetchone()
    return row or (-1, -1)
