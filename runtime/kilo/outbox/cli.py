"""``kilo outbox``: the worker and what keeps the outbox well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer
from psycopg import AsyncConnection
from rich.live import Live
from rich.table import Table
from starlette.applications import Starlette

from kilo.bus import connect
from kilo.bus.cloudevents import source_of
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address, database_url
from kilo.errors import Unreachable
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.observe.tracing import export_spans
from kilo.outbox.reconcile import LAG_SECONDS, Reconciler
from kilo.outbox.upkeep import OutboxState, Upkeep, compact, outbox_state
from kilo.outbox.worker import BATCH, Worker
from kilo.service import (
    health_routes,
    log_start,
    serve_until_stopped,
    spare_garbage_collection,
    stopping_event,
)
from kilo.tables import make_console, make_table

_WATCH_SECONDS = 1.0

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
    log_start(
        "outbox-worker",
        {"listens on": f"{bind_address()}:{port}", "database": url, "bus": outputs.bus.url},
        {"rows a batch": batch, "payload bytes": outputs.outbox.payload_limit_bytes},
    )
    export_spans("kilo-outbox-worker", outputs)
    spare_garbage_collection()
    asyncio.run(_publish(url, outputs, port, batch))


async def _publish(url: str, outputs: StackOutputs, port: int, batch: int) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    runner = Worker(
        url,
        lambda: connect(outputs.bus.url, "kilo-outbox-worker"),
        health,
        batch,
        source=source_of(outputs.stage),
        subject_prefix=outputs.bus.subject_prefix,
    )
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
    log_start(
        "outbox-reconciler",
        {"listens on": f"{bind_address()}:{port}", "database": url, "bus": outputs.bus.url},
        {"seconds behind": lag_seconds},
    )
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


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a look.")] = False,
) -> None:
    """Show how the outbox is: what waits and how long, what holds it back, how far the slot lags.

    Example:  kilo outbox status --watch
    """
    url, outputs = database_url(), load_outputs()
    with _reachable():
        asyncio.run(_status(url, outputs, watch=watch, as_json=as_json))


async def _status(url: str, outputs: StackOutputs, *, watch: bool, as_json: bool) -> None:
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
        if as_json:
            while True:
                typer.echo(json.dumps(asdict(await outbox_state(connection, outputs.outbox))))
                if not watch:
                    return
                await asyncio.sleep(_WATCH_SECONDS)
        table = _table(await outbox_state(connection, outputs.outbox))
        if not watch:
            make_console().print(table)
            return
        with Live(table) as live:
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                live.update(_table(await outbox_state(connection, outputs.outbox)))


def _table(state: OutboxState) -> Table:
    held = f", backend {state.watermark_pid}" if state.watermark_pid else ""
    if state.slot_active is None:
        capture = "no slot"
    else:
        limit = f" of {state.slot_limit_bytes:,}" if state.slot_limit_bytes else ""
        streaming = "streaming" if state.slot_active else "no connector"
        capture = f"{streaming}, {state.slot_lag_bytes or 0:,}{limit} bytes behind"
    rows = [
        ("rows waiting", f"{state.rows_waiting:,}"),
        ("oldest waits", f"{state.oldest_age_seconds:.1f} s"),
        ("blocked keys", state.blocked_keys),
        ("oldest transaction", f"{state.watermark_age_seconds:.1f} s{held}"),
        ("dead tuples", f"{state.dead_tuples:,}"),
        ("change capture", capture),
    ]
    return make_table(("", ""), rows)


@app.command(name="compact")
def compact_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Drop partitions that are drained and older than the fingerprint window; the worker does it too.

    Example:  kilo outbox compact
    """
    url = database_url()

    async def run() -> list[str]:
        dropped: list[str] = []
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            while step := await compact(connection):
                dropped.append(step)
        return dropped

    with _reachable():
        dropped = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps({"dropped": dropped}))
    else:
        typer.echo(f"dropped {', '.join(dropped) or 'nothing'}")


@app.command()
def drain(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish what waits now and end; beside running workers it takes over a share of their slots.

    Example:  kilo outbox drain
    """
    url, outputs = database_url(), load_outputs()
    runner = Worker(
        url, lambda: connect(outputs.bus.url, "kilo-outbox-drain"), source=source_of(outputs.stage)
    )
    with _reachable():
        count = asyncio.run(runner.drain())
    typer.echo(json.dumps({"published": count}) if as_json else f"published {count}")


@contextmanager
def _reachable() -> Generator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    except KeyboardInterrupt:
        return
