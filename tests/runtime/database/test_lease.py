"""Who holds a lease when its holder is frozen, cut off, or comes back late."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import AsyncConnection

from kilo.database.lease import Lease, LeaseLost
from kilo.database.session import SessionLimits, connect
from tests.chaos.proxy import Proxy

SECONDS = 1.0
LIMITS = SessionLimits(idle_in_transaction=1.0, transaction=5.0)
NAME = "consumer/test"


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await connect(database_url, "test", LIMITS) as connection:
        await connection.execute("CREATE TABLE written (by text)")
        yield connection


@pytest.fixture
def proxied(database_url: str) -> Iterator[tuple[Proxy, str]]:
    port = urlsplit(database_url).port
    with Proxy(port) as proxy:
        yield proxy, database_url.replace(f":{port}/", f":{proxy.port}/")


async def take_over(connection: AsyncConnection[Any], lease: Lease) -> None:
    """As a standby does: ask again and again. No single question may wait for the old holder."""
    while not await asyncio.wait_for(lease.acquire(connection), 30):  # noqa: ASYNC110  there is no event
        await asyncio.sleep(0.1)


async def written(connection: AsyncConnection[Any]) -> list[str]:
    return [row[0] for row in await (await connection.execute("SELECT by FROM written")).fetchall()]


async def test_one_holds_it_and_every_holding_has_an_epoch_of_its_own(
    connection: AsyncConnection[Any],
) -> None:
    first, second = Lease(NAME, "first", SECONDS), Lease(NAME, "second", SECONDS)
    assert await first.acquire(connection)
    assert not await second.acquire(connection)
    assert (first.held, second.held) == (True, False)
    epochs = {first.epoch}
    await first.release(connection)
    assert await second.acquire(connection)
    epochs.add(second.epoch)
    await take_over(connection, first)
    epochs.add(first.epoch)
    assert len(epochs) == 3
    with pytest.raises(LeaseLost):
        await second.renew(connection)
    assert not second.held
    await second.release(connection)
    await first.renew(connection)


async def test_two_that_ask_at_once_do_not_both_get_it(database_url: str) -> None:
    connections = [await connect(database_url, f"c{n}") for n in range(8)]
    leases = [Lease(NAME, str(n)) for n in range(8)]
    got = await asyncio.gather(
        *(lease.acquire(each) for lease, each in zip(leases, connections, strict=True))
    )
    assert sum(got) == 1
    for each in connections:
        await each.close()


async def test_nobody_takes_it_over_while_a_fenced_transaction_is_open(
    connection: AsyncConnection[Any], database_url: str
) -> None:
    old, new = Lease(NAME, "old", SECONDS), Lease(NAME, "new", SECONDS)
    async with await connect(database_url, "new") as other:
        await old.acquire(connection)
        async with old.fenced(connection):
            await connection.execute("INSERT INTO written VALUES ('old')")
            await connection.execute("SELECT pg_sleep(1.5)")
            assert not await asyncio.wait_for(new.acquire(other), 30)
        await take_over(other, new)
        with pytest.raises(LeaseLost):
            async with old.fenced(connection):
                await connection.execute("INSERT INTO written VALUES ('too late')")
        assert await written(connection) == ["old"]


_HOLDER = """
import asyncio, sys
from kilo.database.lease import Lease
from kilo.database.session import SessionLimits, connect

async def main(url):
    connection = await connect(url, "frozen", SessionLimits(idle_in_transaction=1.0))
    lease = Lease("consumer/test", "frozen", 1.0)
    assert await lease.acquire(connection)
    async with lease.fenced(connection):
        await connection.execute("INSERT INTO written VALUES ('frozen')")
        print("in the transaction", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    print("committed", flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_frozen_holder_is_replaced_and_can_not_commit_when_it_goes_on(
    connection: AsyncConnection[Any], database_url: str
) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, database_url, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        assert holder.stdout
        assert await holder.stdout.readline() == b"in the transaction\n"
        os.kill(holder.pid, signal.SIGSTOP)
        standby = Lease(NAME, "standby", SECONDS)
        await asyncio.wait_for(take_over(connection, standby), 30)
        async with standby.fenced(connection):
            await connection.execute("INSERT INTO written VALUES ('standby')")
        os.kill(holder.pid, signal.SIGCONT)
        out, err = await holder.communicate(b"go on\n")
        assert b"committed" not in out
        assert b"idle-in-transaction timeout" in err
        assert await written(connection) == ["standby"]
    finally:
        with suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()


async def test_a_write_that_the_network_held_back_is_refused(
    connection: AsyncConnection[Any], proxied: tuple[Proxy, str]
) -> None:
    proxy, url = proxied
    old, new = Lease(NAME, "old", SECONDS), Lease(NAME, "new", SECONDS)
    async with await connect(url, "cut off", LIMITS) as cut_off:
        await old.acquire(cut_off)
        proxy.stall()

        async def write() -> None:
            async with old.fenced(cut_off):
                await cut_off.execute("INSERT INTO written VALUES ('late')")

        late = asyncio.create_task(write())
        await asyncio.wait_for(take_over(connection, new), 30)
        proxy.flow()
        with pytest.raises((LeaseLost, psycopg.Error)):
            await asyncio.wait_for(late, 30)
        assert await written(connection) == []


async def test_a_holder_whose_packets_are_swallowed_in_a_transaction_is_replaced(
    connection: AsyncConnection[Any], proxied: tuple[Proxy, str]
) -> None:
    proxy, url = proxied
    old, new = Lease(NAME, "old", SECONDS), Lease(NAME, "new", SECONDS)
    cut_off = await connect(url, "cut off", LIMITS)
    await old.acquire(cut_off)
    transaction = old.fenced(cut_off)
    await transaction.__aenter__()
    await cut_off.execute("INSERT INTO written VALUES ('swallowed')")
    proxy.hang()
    await asyncio.wait_for(take_over(connection, new), 30)
    assert await written(connection) == []
    await cut_off.close()


async def test_the_server_ends_what_a_client_leaves_open(
    connection: AsyncConnection[Any],
) -> None:
    cursor = await connection.execute(
        "SELECT name, setting || coalesce(unit, '') FROM pg_settings WHERE name = ANY(%s)",
        (["idle_in_transaction_session_timeout", "transaction_timeout", "tcp_user_timeout", "lock_timeout"],),
    )
    assert dict(await cursor.fetchall()) == {
        "idle_in_transaction_session_timeout": "1000ms",
        "transaction_timeout": "5000ms",
        "tcp_user_timeout": "10000ms",
        "lock_timeout": "5000ms",
    }
    await connection.execute("BEGIN")
    await asyncio.sleep(2)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        await connection.execute("SELECT 1")
    assert connection.closed


async def test_a_workload_can_not_take_another_ones_lease(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SET ROLE kilo_worker")
    assert await Lease("outbox/reconciler", "worker").acquire(connection)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await Lease(NAME, "worker").acquire(connection)
    await connection.execute("SET ROLE kilo_consumer")
    for statement in ("DELETE FROM leases", "UPDATE leases SET expires_at = '-infinity'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="another workload's"):
            await connection.execute(statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="another workload's"):
        await connection.execute("INSERT INTO leases VALUES ('outbox/x', 'consumer', 1, now())")
    assert await Lease(NAME, "consumer").acquire(connection)
