"""``kilo consumer``: the sample consumer, and the refill of any."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import psycopg
import typer
from rich.console import Console
from rich.progress import Progress
from starlette.applications import Starlette

from kilo.bus import Bus, connect
from kilo.bus.cloudevents import source_of
from kilo.consumer.consumer import Connections
from kilo.consumer.projection import make_consumer
from kilo.consumer.refill import Refill, Refilled
from kilo.consumer.upkeep import InboxUpkeep
from kilo.contract import StackOutputs, load_outputs
from kilo.database.lease import LeaseLost
from kilo.database.session import connect as connect_database
from kilo.environment import bind_address, database_url
from kilo.errors import CheckFailed, Unreachable
from kilo.fle import AsyncFieldCipher
from kilo.fle.upkeep import EncryptionUpkeep
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.observe.tracing import export_spans
from kilo.sensitive import TABLE
from kilo.service import (
    health_routes,
    log_start,
    serve_until_stopped,
    spare_garbage_collection,
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
    export_spans("kilo-consumer", outputs)
    spare_garbage_collection()
    asyncio.run(_run(url, outputs, port))


async def _run(url: str, outputs: StackOutputs, port: int) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    consumer = make_consumer()
    cipher = AsyncFieldCipher.from_outputs(outputs, url, table=TABLE)

    async def connect_bus() -> Bus:
        return await connect(outputs.bus.url, "kilo-consumer")

    connections = Connections(url, connect_bus, outputs.bus.stream, cipher)
    upkeep = InboxUpkeep(url, connect_bus, outputs.bus.stream, consumer.name, health)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [
            lambda: asyncio.ensure_future(consumer.run(connections, stopping, health)),
            lambda: asyncio.ensure_future(upkeep.run(stopping)),
            lambda: asyncio.ensure_future(EncryptionUpkeep(outputs, url).run(stopping)),
        ],
    )


@app.command()
def refill(
    consumer: Annotated[str, typer.Option(help="The consumer's name.")],
    dry_run: Annotated[bool, typer.Option(help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give a consumer the events that the stream no longer had, from the outbox's rows that still exist.

    Each has one effect, however often this is run. Reads the stage's outputs from KILO_OUTPUTS and the
    database from DATABASE_URL, with the worker's role. On the bus it reads and publishes, as the reconciler:
    the worker's user may not read.

    Example:  kilo consumer refill --consumer projection --dry-run
    """
    url, outputs = database_url(), load_outputs()
    done = asyncio.run(_refill(url, outputs, consumer, dry_run=dry_run))
    if as_json:
        counts = {"gaps": done.gaps, "missing": done.missing, "found": done.found}
        more = {"republished": done.republished, "no_longer_exist": done.no_longer_exist, "dry_run": dry_run}
        typer.echo(json.dumps({"consumer": consumer, **counts, **more}))
    elif not done.gaps:
        typer.echo(f"consumer {consumer} has no gap to refill")
    else:
        what = "would republish" if dry_run else "republished"
        count = done.found if dry_run else done.republished
        typer.echo(
            f"{done.missing} messages in {done.gaps} gaps: {done.found} rows found, {what} {count},"
            f" {done.no_longer_exist} no longer exist"
        )


async def _refill(url: str, outputs: StackOutputs, consumer: str, *, dry_run: bool) -> Refilled:
    bus = await connect(outputs.bus.url, "kilo-consumer-refill")
    try:
        with Progress(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("refill", total=None)

            def progress(more: int, missing: int) -> None:
                shown.update(task, advance=more, total=missing)

            async with await connect_database(url, "kilo-consumer-refill") as connection:
                stream, prefix = outputs.bus.stream, outputs.bus.subject_prefix
                work = Refill(connection, bus, stream, prefix, consumer, progress, source_of(outputs.stage))
                return await work.run(dry_run=dry_run)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    except LeaseLost as error:
        msg = f"{error}: another refill of consumer {consumer} goes on"
        raise CheckFailed(msg) from error
    finally:
        await bus.close()
