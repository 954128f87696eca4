"""A consumer that leads and is frozen or cut off is taken over, and what it does afterwards has no effect."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import AsyncConnection

from kilo.consumer import Event
from kilo.consumer.runner import _LIMITS  # pyright: ignore[reportPrivateUsage]
from kilo.database.lease import LEASE_SECONDS
from tests.chaos.proxy import Proxy
from tests.patience import PATIENCE_SECONDS, eventually
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import QUICK, Running, a_message, make

LEADER = """
import asyncio, sys
from kilo.bus import connect
from kilo.consumer import Consumer, Connections, Policy
from tests.runtime.consumer.support import Plain
consumer = Consumer("test")
@consumer.on("*", Policy(timeout_seconds=120))
async def handle(event, connection):
    n = event.payload["n"]
    await connection.execute("INSERT INTO effects (n, aggregate_id) VALUES (%s, 'old')", (n,))
    print("wrote", flush=True)
    if n == 2:
        await asyncio.sleep(3)
async def main():
    connections = Connections(sys.argv[1], lambda: connect(sys.argv[2]), "EVENTS", Plain())
    await consumer.run(connections, asyncio.Event())
asyncio.run(main())
"""
LEADING = "SELECT count(*) FROM leases WHERE name = 'consumer/test'"


@asynccontextmanager
async def leading(one: Running, url: str) -> AsyncGenerator[Process]:
    """A process that leads, and is in the middle of event 2."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEADER, url, one.bus.server.url, stdout=PIPE
    )
    try:
        await one.until(LEADING, [(1,)])
        await one.publish([a_message(1), a_message(2)])
        assert process.stdout is not None
        for _ in range(2):
            assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def a_standby(url: str, bus: BusServer) -> Running:
    one = make(url, bus)

    @one.consumer.on("*", QUICK)
    async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        values = (event.payload["n"],)
        await connection.execute("INSERT INTO effects (n, aggregate_id) VALUES (%s, 'new')", values)

    return one


def test_the_limits_leave_room_for_a_takeover_below_thirty_seconds() -> None:
    assert max(_LIMITS.idle_in_transaction, LEASE_SECONDS, _LIMITS.network) <= 10


async def test_a_frozen_leader_is_taken_over_and_has_no_effect_when_it_comes_back(
    database_url: str, bus: BusServer
) -> None:
    one = a_standby(database_url, bus)
    async with leading(one, database_url) as process:
        os.kill(process.pid, signal.SIGSTOP)
        async with one.running():
            # Its whole batch is undone, and done by the one that takes over.
            await one.until("SELECT n, aggregate_id FROM effects ORDER BY n", [(1, "new"), (2, "new")])
            ((epoch,),) = one.sql("SELECT epoch FROM leases")
            os.kill(process.pid, signal.SIGCONT)
            await one.publish([a_message(3, "b")])
            await one.until("SELECT n FROM effects ORDER BY n", [(1,), (2,), (3,)])
            # It has come back and asks for the lease again.
            await one.until(
                "SELECT count(*) > 1 FROM pg_stat_activity WHERE application_name = 'kilo-consumer test'",
                [(True,)],
            )
            assert one.sql("SELECT epoch FROM leases") == [(epoch,)]
    assert one.sql("SELECT DISTINCT aggregate_id FROM effects") == [("new",)]
    assert one.sql("SELECT count(*) FROM dead_letters") == [(0,)]


async def test_a_leader_whose_network_swallows_every_packet_is_taken_over(
    database_url: str, bus: BusServer
) -> None:
    port = urlsplit(database_url).port
    one = a_standby(database_url, bus)
    with Proxy(port) as proxy:
        async with leading(one, database_url.replace(f":{port}/", f":{proxy.port}/")):
            proxy.hang()
            async with one.running():
                await one.until("SELECT n, aggregate_id FROM effects ORDER BY n", [(1, "new"), (2, "new")])


async def test_a_copy_that_is_stopped_leaves_its_lease_at_once(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(1)])
    async with one.running():
        await one.until("SELECT n FROM effects", [(1,)])
    assert one.sql(LEADING) == [(0,)]


@pytest.mark.parametrize("times", [3])
async def test_a_copy_whose_connection_is_ended_goes_on_with_its_own_lease(
    database_url: str, bus: BusServer, times: int
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    async with one.running():
        for n in range(times):
            await one.publish([a_message(n)])
            await one.until("SELECT count(*) FROM effects", [(n + 1,)])
            one.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'kilo-consumer test'"
            )
            await eventually(lambda: one.sql(LEADING) == [(1,)])
        assert one.sql("SELECT last_value FROM lease_epoch_seq") == [(1,)]
