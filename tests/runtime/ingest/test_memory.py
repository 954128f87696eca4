"""Ingest within its pod's memory, while tenants send the largest that is permitted over many connections."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest

from kilo.ingest.limits import BATCH_BYTES
from kilo.testing.servers.ports import free_port
from tests.events import make_outputs
from tests.patience import PATIENCE_SECONDS, eventually

POD_MEBIBYTES = 384
"""As components/processes/ingest.py has it."""
PAYLOAD_BYTES = 262_144
CONNECTIONS, TRIES = 48, 600

INGEST = """
import asyncio, resource, sys
limit = int(sys.argv[3]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from psycopg_pool import AsyncConnectionPool
from kilo.contract import StackOutputs
from kilo.health import Health
from kilo.ingest.app import make_app
from kilo.ingest.store import EventStore
from kilo.service import server
from tests.runtime.consumer.support import Plain
async def main():
    pool = AsyncConnectionPool(sys.argv[1], min_size=2, max_size=16, open=False, kwargs={"autocommit": True})
    outputs = StackOutputs.model_validate_json(sys.argv[4])
    async with pool:
        await server(make_app(outputs, EventStore(pool, Plain()), Health()), int(sys.argv[2])).serve()
asyncio.run(main())
"""


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def limited(database_url: str) -> AsyncGenerator[tuple[Process, httpx.AsyncClient]]:
    """Ingest as a process of its own under the limit, and a client of many connections."""
    made = make_outputs()
    outputs = made.model_copy(
        update={"outbox": made.outbox.model_copy(update={"payload_limit_bytes": PAYLOAD_BYTES})}
    )
    port = free_port()
    arguments = (database_url, str(port), str(POD_MEBIBYTES), outputs.model_dump_json())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INGEST, *arguments, stdout=DEVNULL, stderr=DEVNULL
    )
    limits = httpx.Limits(max_connections=CONNECTIONS)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=PATIENCE_SECONDS
        ) as client:
            await eventually(lambda: listens(port), "ingest does not listen")
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


Request = tuple[str, str, dict[str, str], int]
"""Path, body, headers, and how many events it has."""


def text(size: int) -> str:
    head = '{"x": "'
    return f'{head}{"x" * (size - len(head) - 2)}"}}'


def values(size: int) -> str:
    """Lists in lists: read into objects they take thirty times their bytes."""
    nested = "[" * 8 + "]" * 8
    return f'{{"x": [{f"{nested}, " * ((size - 16) // (len(nested) + 2))}0]}}'


def event(key: str, payload: str) -> str:
    head = {"key": key, "aggregate": "order", "aggregate_id": key, "kind": "order.paid"}
    return f'{json.dumps(head)[:-1]}, "payload": {payload}}}'


def one(key: str, payload: str) -> Request:
    body = event(key, payload)
    return "/v1/events", body, {"idempotency-key": key, "content-type": "application/json"}, 1


def batch(key: str, payload: str) -> Request:
    line = event(key, payload)
    count = (BATCH_BYTES - 1) // (len(line) + 8)
    body = "\n".join(event(f"{key}-{n}", payload) for n in range(count))
    return "/v1/events:batch", body, {"content-type": "application/x-ndjson"}, count


@pytest.mark.parametrize("shape", [text, values])
@pytest.mark.parametrize("make", [one, batch])
async def test_the_largest_requests_of_many_connections_fit_and_a_small_one_gets_through(
    database_url: str, make: Callable[[str, str], Request], shape: Callable[[int], str]
) -> None:
    statuses: Counter[int] = Counter()
    accepted: Counter[str] = Counter()
    async with limited(database_url) as (process, client):

        async def send(tenant: str, number: int) -> None:
            path, body, headers, count = make(f"{number}", shape(PAYLOAD_BYTES - 8))
            if path == "/v1/events":
                body = body.replace(f'"key": "{number}", ', "", 1)
            answer = await client.post(path, content=body, headers={"x-tenant-id": tenant, **headers})
            statuses[answer.status_code] += 1
            if answer.is_success:
                accepted[tenant] += answer.json().get("accepted", count)
            else:
                assert answer.status_code in {429, 503}, answer.text[:300]
                assert int(answer.headers["retry-after"]) > 0

        senders = [
            asyncio.ensure_future(send(("acme", "globex")[number % 2], number))
            for number in range(CONNECTIONS)
        ]
        head = {"x-tenant-id": "initech", "idempotency-key": "small", "content-type": "application/json"}
        small = '{"aggregate": "order", "aggregate_id": "1", "kind": "order.paid", "payload": {}}'

        async def taken() -> None:
            for _ in range(TRIES):
                if (await client.post("/v1/events", content=small, headers=head)).is_success:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(statuses)

        await asyncio.gather(*senders, taken())
        assert process.returncode is None
    assert statuses.total() == CONNECTIONS
    assert accepted.total() > 0
    with psycopg.connect(database_url) as connection:
        stored = dict(connection.execute("SELECT tenant, count(*) FROM outbox GROUP BY tenant").fetchall())
    # What took too long is answered as not known to be stored, and may be.
    assert all(stored[tenant] >= count for tenant, count in accepted.items() if count)
    assert stored["initech"] == 1
