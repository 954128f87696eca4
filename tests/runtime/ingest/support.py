"""Ingest as it listens, for tests of what stands before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
from psycopg_pool import AsyncConnectionPool

from kilo.ingest.app import make_app
from kilo.ingest.store import EventStore
from kilo.service import Health, server
from kilo.testing.servers.ports import free_port
from tests.events import make_outputs
from tests.patience import until
from tests.runtime.consumer.support import Plain


@contextmanager
def serving_ingest(database_url: str) -> Generator[int]:
    """Ingest on a thread with a real database; yields its port."""
    port = free_port()
    stopping = threading.Event()

    async def serve() -> None:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            database_url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
        )
        async with pool:
            http = server(make_app(make_outputs(), EventStore(pool, Plain()), Health()), port)
            serving = asyncio.ensure_future(http.serve())
            await asyncio.to_thread(stopping.wait)
            http.should_exit = True
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()

    def answers() -> bool | None:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200 or None
        except httpx.TransportError:
            return None

    until(answers, "ingest does not answer")
    try:
        yield port
    finally:
        stopping.set()
        thread.join(30)
