"""Worker and reconciler under their pod's memory limit, with the largest payloads of several tenants."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import psycopg

from tests.runtime.conftest import BusServer
from tests.runtime.outbox.test_worker import waiting

POD_BYTES = 384 << 20
PAYLOAD_BYTES = 262_144
EACH = 250
TENANTS = ("acme", "globex", "initech")

_WORKER = """
import asyncio, resource, sys
from kilo.bus import connect
from kilo.outbox.worker import Worker

resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
asyncio.run(Worker(sys.argv[2], lambda: connect(sys.argv[3])).run(asyncio.Event()))
"""
_RECONCILER = """
import asyncio, resource, sys
from kilo.bus import connect
from kilo.contract import StackOutputs
from kilo.outbox.reconcile import Reconciler

resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
outputs = StackOutputs.model_validate_json(sys.argv[4])
reconciler = Reconciler(sys.argv[2], lambda: connect(sys.argv[3]), outputs, lag_seconds=1)
asyncio.run(reconciler.run(asyncio.Event()))
"""


def write_largest(url: str) -> int:
    """Events of the largest permitted size of each tenant, and behind them one small one of another."""
    with psycopg.connect(url) as connection:
        for tenant in TENANTS:
            connection.execute(
                "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
                " SELECT %s, 'order', (n %% 50)::text, 'k', jsonb_build_object('x', repeat('a', %s)), n::text"
                " FROM generate_series(1, %s) n",
                (tenant, PAYLOAD_BYTES - len('{"x": ""}'), EACH),
            )
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " VALUES ('umbrella', 'order', '1', 'k', '{}', '1')"
        )
    return len(TENANTS) * EACH + 1


@asynccontextmanager
async def limited(code: str, *arguments: str) -> AsyncGenerator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(POD_BYTES), *arguments)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_everybodys_events_get_through_in_the_memory_of_a_pod(
    database_url: str, bus: BusServer
) -> None:
    count = write_largest(database_url)
    async with limited(_WORKER, database_url, bus.server.url) as worker:
        while waiting(database_url):
            assert worker.returncode is None
            await asyncio.sleep(0.2)
    client = await bus.connect()
    assert await client.last_position("EVENTS") == count
    # And again when the bus has lost them all.
    await client.client.jetstream().purge_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
    arguments = (database_url, bus.server.url, bus.outputs.model_dump_json())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE outbox SET dequeued_at = dequeued_at - interval '30 s'")
        query = "SELECT sum(republished) FROM outbox_reconciler"
        async with limited(_RECONCILER, *arguments) as reconciler:
            while (connection.execute(query).fetchone() or (0,))[0] != count:
                assert reconciler.returncode is None
                await asyncio.sleep(0.2)
    first, last = await client.first_position("EVENTS"), await client.last_position("EVENTS")
    assert last - first + 1 == count
    await client.close()
