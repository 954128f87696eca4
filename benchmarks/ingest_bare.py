"""What the ingest benchmark measures beside: a bare Starlette handler and pgbench with the same two INSERTs.

The handler is what one writes first: parse, two INSERTs in one transaction over a pool, answer. It checks
nothing, encrypts nothing and answers a repeated key with an error; it has the same server, parser and
event loop as ingest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kilo.service import run_to_end
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.postgres import PostgresServer
from sandbox.toolchain import path

_OUTBOX = (
    "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, content_digest)"
    " VALUES (%s, %s, %s, %s, %s::jsonb, %s, %s)"
)
_EVENTS = (
    "INSERT INTO events (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
    " VALUES (%s, %s, %s, %s, %s::jsonb, %s)"
)
_PGBENCH = r"""
\set n random(1, 1000000000000)
BEGIN;
INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, content_digest)
    VALUES ('acme', 'order', ':n', 'order.created', '{PAYLOAD}'::jsonb, 'acme/pgbench-:client_id-:n', '\x00');
INSERT INTO events (tenant, aggregate, aggregate_id, kind, payload, fingerprint)
    VALUES ('acme', 'order', ':n', 'order.created', '{PAYLOAD}'::jsonb, 'acme/pgbench-:client_id-:n');
COMMIT;
"""


async def _main(database_url: str, port: int) -> None:
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(database_url, min_size=16, max_size=16, open=False)

    async def post(request: Request) -> Response:
        body = await request.body()
        event = json.loads(body)
        tenant, key = request.headers["x-tenant-id"], request.headers["idempotency-key"]
        values = (
            tenant, event["aggregate"], event["aggregate_id"], event["kind"],
            json.dumps(event["payload"]), f"{tenant}/{key}",
        )  # fmt: skip
        async with pool.connection() as connection:
            await connection.execute(_OUTBOX, (*values, hashlib.sha256(body).digest()))
            await connection.execute(_EVENTS, values)
        return JSONResponse({"fingerprint": values[-1]}, 201)

    async def ready(_request: Request) -> Response:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/v1/events", post, methods=["POST"]), Route("/readyz", ready)])
    async with pool:
        await uvicorn.Server(
            uvicorn.Config(app, port=port, log_level="warning", access_log=False, lifespan="off")
        ).serve()


@contextmanager
def bare_handler(database_url: str) -> Generator[tuple[str, int]]:
    """The handler in a process of its own; yields its URL and its process id."""
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.ingest_bare", str(port)],
                               env={**os.environ, "DATABASE_URL": database_url})  # fmt: skip
    try:
        for _ in range(300):
            try:
                httpx.get(f"{url}/readyz")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def pgbench(server: PostgresServer, database: str, connections: int, seconds: int, directory: Path) -> float:
    """Transactions a second that pgbench makes of the same two INSERTs, prepared, without any HTTP."""
    payload = json.dumps({"number": 1, "customer": "Zoë Müller", "note": "x" * 150}, ensure_ascii=False)
    script = directory / "pgbench.sql"
    # In prepared mode :n inside quotes is no parameter, so the texts are put together by the server.
    text = _PGBENCH.replace("{PAYLOAD}", payload)
    text = text.replace("':n'", "(:n)::text").replace(
        "'acme/pgbench-:client_id-:n'", "'acme/pgbench-' || (:client_id)::text || '-' || (:n)::text"
    )
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(path("postgres") / "pgbench"), "-n", "-M", "prepared", "-c", str(connections), "-j", "1", "-T",
         str(seconds), "-f", str(script), server.url_of(database)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


if __name__ == "__main__":
    run_to_end(_main(os.environ["DATABASE_URL"], int(sys.argv[1])))
