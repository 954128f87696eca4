"""A worker that is stopped, wherever it is, holds nobody up, and comes back to nothing that it may write."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from kilo.database.lease import LeaseLost
from kilo.database.session import connect
from kilo.outbox import Event, enqueue
from kilo.outbox.dispatched import mark_dispatched
from kilo.outbox.reader import SLOTS, OutboxReader
from kilo.outbox.slots import SlotLeases
from tests.runtime.conftest import BusServer
from tests.runtime.outbox.test_worker import check_whole, eventually, running, waiting, write

_WORKER = """
import asyncio, sys
from kilo.bus import connect
from kilo.outbox.worker import Worker

asyncio.run(Worker(sys.argv[1], lambda: connect(sys.argv[2]), name="frozen").run(asyncio.Event()))
"""


def slots_of(admin: psycopg.Connection[Any], name: str) -> int:
    row = admin.execute("SELECT count(*) FROM outbox_slots WHERE owner = %s", (name,)).fetchone()
    return row[0] if row else -1


async def test_a_worker_that_is_frozen_while_it_renews_is_replaced(database_url: str, bus: BusServer) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, database_url, bus.server.url
    )
    try:
        with psycopg.connect(database_url, autocommit=True) as admin:
            await eventually(lambda: slots_of(admin, "frozen") == SLOTS)
            # A row lock holds it within its renewal, where it is stopped.
            with psycopg.connect(database_url) as hold:
                hold.execute("SELECT FROM leases FOR UPDATE")
                query = (
                    "SELECT FROM pg_stat_activity WHERE application_name = 'kilo-outbox frozen'"
                    " AND datname = current_database() AND wait_event_type = 'Lock'"
                )
                await eventually(lambda: bool(admin.execute(query).fetchall()))
                os.kill(process.pid, signal.SIGSTOP)
            write(database_url, 100)
            async with asyncio.timeout(30), running(database_url, bus):
                await eventually(lambda: slots_of(admin, "w0") == SLOTS)
                await eventually(lambda: waiting(database_url) == 0)
                os.kill(process.pid, signal.SIGCONT)
                # It goes on as one of two, with a new epoch.
                await eventually(lambda: slots_of(admin, "frozen") == SLOTS // 2)
                write(database_url, 100, start=100)
                check_whole(await bus.wait(lambda found: len(found) >= 200), 200)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_former_holder_of_slots_marks_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as writer:
        enqueue(writer, Event("acme", "order", "1", "k", {}, "1"))
    async with await connect(database_url, "old") as one, await connect(database_url, "new") as other:
        old, new = SlotLeases(one, "old", seconds=0.5), SlotLeases(other, "new", seconds=30)
        await old.renew()
        rows = await OutboxReader(one).read(old.held, 10, 1 << 20)
        assert len(rows) == 1
        await asyncio.sleep(1)
        await new.renew()
        assert len(new.held) == SLOTS
        with pytest.raises(LeaseLost):
            await mark_dispatched(one, old.lease, rows)
        assert waiting(database_url) == 1
        assert await mark_dispatched(other, new.lease, rows) == 1
        # Back again, it has a share of slots, not those that it had.
        assert await old.renew() is False
        assert old.held == frozenset()
        await new.renew()
        await old.renew()
        assert len(old.held) == SLOTS // 2
        assert not old.held & new.held
