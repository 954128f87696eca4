"""``kilo consumer``: the sample consumer."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from starlette.applications import Starlette

from kilo.bus import Bus, connect
from kilo.consumer.consumer import Place
from kilo.consumer.projection import make_consumer
from kilo.consumer.upkeep import InboxUpkeep
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address, database_url
from kilo.fle import AsyncFieldCipher
from kilo.fle.upkeep import EncryptionUpkeep
from kilo.health import Health
from kilo.observe.tracing import export_spans
from kilo.sensitive import TABLE
from kilo.service import (
    health_routes,
    log_start,
    serve_until_stopped,
    spare_garbage_collection,
    start_logging,
    stopping_event,
)

app = typer.Typer(no_args_is_help=True, help="The idempotent consumer.")


@app.callback()
def _group() -> None:
    """The idempotent consumer."""


@app.command()
def run(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10083,
) -> None:
    """Consume the stage's events into the sample projection until stopped.

    Reads the stage's outputs from KILO_OUTPUTS and the database from DATABASE_URL. Several may run: one
    works, the others stand by.

    Example:  kilo consumer run --port 10083
    """
    url, outputs = database_url(), load_outputs()
    start_logging()
    log_start(
        "consumer",
        {"listens on": f"{bind_address()}:{port}", "database": url, "bus": outputs.bus.url},
        {"stream": outputs.bus.stream, "tenants": len(outputs.tenants)},
    )
    export_spans("kilo-consumer")
    spare_garbage_collection()
    asyncio.run(_run(url, outputs, port))


async def _run(url: str, outputs: StackOutputs, port: int) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    consumer = make_consumer()
    cipher = AsyncFieldCipher.from_outputs(outputs, url, table=TABLE)

    async def connect_bus() -> Bus:
        return await connect(outputs.bus.url, "kilo-consumer")

    place = Place(url, connect_bus, outputs.bus.stream, cipher)
    upkeep = InboxUpkeep(url, connect_bus, outputs.bus.stream, consumer.name)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [
            lambda: asyncio.ensure_future(consumer.run(place, stopping, health)),
            lambda: asyncio.ensure_future(upkeep.run(stopping)),
            lambda: asyncio.ensure_future(EncryptionUpkeep(outputs, url).run(stopping)),
        ],
    )
