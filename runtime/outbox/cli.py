"""``kilo outbox``: the worker and what keeps the outbox well."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from starlette.applications import Starlette

from runtime.bus import connect
from runtime.contract import StackOutputs, load_outputs
from runtime.environment import database_url
from runtime.outbox.reconcile import LAG_SECONDS, Reconciler
from runtime.outbox.upkeep import Upkeep
from runtime.outbox.worker import BATCH, Worker
from runtime.service import Health, health_routes, serve_until_stopped, start_logging, stopping_event

app = typer.Typer(no_args_is_help=True, help="The outbox: its worker, its state, its upkeep.")


@app.callback()
def _group() -> None:
    """The outbox: its worker, its state, its upkeep."""


@app.command()
def worker(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10082,
    batch: Annotated[int, typer.Option(min=1, max=20_000, help="Rows published at once.")] = BATCH,
) -> None:
    """Carry committed outbox rows to the bus until stopped.

    Reads the stage's outputs from KILO_OUTPUTS and the database from DATABASE_URL. Several may run: they
    share the aggregates.

    Example:  kilo outbox worker --port 10082
    """
    url, outputs = database_url(), load_outputs()
    start_logging()
    asyncio.run(_work(url, outputs, port, batch))


async def _work(url: str, outputs: StackOutputs, port: int, batch: int) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    runner = Worker(url, lambda: connect(outputs.bus.url, "kilo-outbox-worker"), health, batch)
    upkeep = Upkeep(url, outputs.outbox)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [
            lambda: asyncio.ensure_future(runner.run(stopping)),
            lambda: asyncio.ensure_future(upkeep.run(stopping)),
        ],
    )


@app.command()
def reconcile(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10086,
    lag_seconds: Annotated[
        float, typer.Option(min=1, help="How far behind to compare; longer than the bus's sync interval.")
    ] = LAG_SECONDS,
) -> None:
    """Compare outbox and stream until stopped: mark what change capture delivered, mend what is missing.

    Reads the stage's outputs from KILO_OUTPUTS and the database from DATABASE_URL.

    Example:  kilo outbox reconcile --port 10086
    """
    url, outputs = database_url(), load_outputs()
    start_logging()
    asyncio.run(_reconcile(url, outputs, port, lag_seconds))


async def _reconcile(url: str, outputs: StackOutputs, port: int, lag_seconds: float) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    reconciler = Reconciler(
        url, lambda: connect(outputs.bus.url, "kilo-outbox-reconciler"), outputs, health, lag_seconds
    )
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [lambda: asyncio.ensure_future(reconciler.run(stopping))],
    )
