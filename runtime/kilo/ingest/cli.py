"""``kilo ingest``: the HTTP entrance."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address, database_url
from kilo.fle import AsyncFieldCipher
from kilo.health import Health
from kilo.ingest.app import make_app
from kilo.ingest.store import EventStore
from kilo.ingest.warming import COMPONENT, warm
from kilo.observe.logs import start_logging
from kilo.observe.tracing import export_spans
from kilo.sensitive import TABLE
from kilo.service import (
    log_start,
    run_to_end,
    serve_until_stopped,
    spare_garbage_collection,
    stopping_event,
)

app = typer.Typer(no_args_is_help=True, help="The HTTP entrance for events.")

_CHECK_SECONDS = 2.0


@app.callback()
def _group() -> None:
    """The HTTP entrance for events."""


@app.command(
    epilog="Example: KILO_OUTPUTS=outputs.json DATABASE_URL=postgresql://… kilo ingest serve --port 10081"
)
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for events and health.")] = 10081,
) -> None:
    """Take events over HTTP and write each with its outbox row in one transaction.

    Reads the stage's outputs from KILO_OUTPUTS, the database from DATABASE_URL and listens on POD_IP.

    Example:  curl -H 'X-Tenant-Id: acme' -H 'Idempotency-Key: order-42' localhost:10081/v1/events
    -d '{"aggregate":"order","aggregate_id":"42","kind":"order.created","payload":{"total":12}}'
    """
    url, outputs = database_url(), load_outputs()
    start_logging()
    log_start(
        "ingest",
        {"listens on": f"{bind_address()}:{port}", "database": url},
        {"tenants": len(outputs.tenants), "payload bytes": outputs.outbox.payload_limit_bytes},
    )
    export_spans("kilo-ingest", outputs)
    run_to_end(_serve(url, outputs, port))


async def _serve(url: str, outputs: StackOutputs, port: int) -> None:
    stopping = stopping_event()
    health = Health("database", COMPONENT)
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        url,
        min_size=2,
        max_size=16,
        timeout=5,
        open=False,
        kwargs={"connect_timeout": 5, "application_name": "kilo-ingest", "autocommit": True},
        configure=_prepare,
    )
    await pool.open()
    spare_garbage_collection()
    cipher = AsyncFieldCipher.from_outputs(outputs, url, table=TABLE)
    application = make_app(outputs, EventStore(pool, cipher), health)
    encrypting = [tenant for tenant, own in outputs.tenants.items() if own.encrypted_fields]
    work = [
        lambda: asyncio.ensure_future(_watch(pool, health, stopping)),
        lambda: asyncio.ensure_future(warm(cipher, encrypting, health, stopping)),
    ]
    try:
        await serve_until_stopped(application, port, stopping, work)
    finally:
        await pool.close()


async def _prepare(connection: AsyncConnection[Any]) -> None:
    # A statement that hangs must not hold a client's request for ever; whoever waits for somebody else's
    # lock is told to come back, and what was to be committed with it goes on.
    await connection.execute(
        "SET statement_timeout = '10s'; SET lock_timeout = '250ms';"
        " SET idle_in_transaction_session_timeout = '30s'"
    )


async def _watch(pool: AsyncConnectionPool[Any], health: Health, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            async with pool.connection(timeout=5) as connection:
                await connection.execute("SELECT 1 FROM outbox_cdc_aggregates LIMIT 1")
            health.fine("database")
        except Exception as error:
            health.broken("database", type(error).__name__)
        try:
            await asyncio.wait_for(stopping.wait(), _CHECK_SECONDS)
        except TimeoutError:
            continue
