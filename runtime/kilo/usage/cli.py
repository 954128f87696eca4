"""``kilo usage``: collect what tenants use, report it, and say what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from starlette.applications import Starlette

from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address, database_url
from kilo.errors import BadInput
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.project import find_project
from kilo.service import health_routes, log_start, serve_until_stopped, stopping_event
from kilo.tables import print_table
from kilo.usage.collector import PAUSE_SECONDS, Collector
from kilo.usage.costs import make_bill
from kilo.usage.counter import PAUSE_SECONDS as COUNT_PAUSE_SECONDS
from kilo.usage.counter import Counter
from kilo.usage.files import KEEP_BYTES, ROTATE_BYTES, LogFiles
from kilo.usage.focus import COLUMNS as FOCUS_COLUMNS
from kilo.usage.focus import focus_rows, month_bounds
from kilo.usage.formats import Format, write_rows
from kilo.usage.report import (
    DIMENSIONS,
    Asked,
    Key,
    Used,
    as_rows,
    columns_of,
    find_anomalies,
    open_database,
    read_usage,
)
from kilo.usage.stage_file import load_usage

app = typer.Typer(no_args_is_help=True, help="What tenants use: collect it, report it, say what it costs.")

_MEBIBYTE = 1024 * 1024


@app.callback()
def _group() -> None:
    """What tenants use: collect it, report it, say what it costs."""


@app.command(epilog="Example: kilo usage collect --file /var/log/kilo/usage.log --source gateway-0")
def collect(  # noqa: PLR0917  options, given by name
    file: Annotated[Path, typer.Option(help="What the gateway writes its entries to.")],
    source: Annotated[str, typer.Option(help="Which gateway: no two have one name.", envvar="POD_NAME")],
    admin: Annotated[
        str | None, typer.Option(help="Its admin socket, such as @kilo-gateway-10.0.0.7, to begin new files.")
    ] = None,
    pause_seconds: Annotated[float, typer.Option(min=0.05, help="Between two looks.")] = PAUSE_SECONDS,
    rotate_mebibytes: Annotated[
        float, typer.Option(min=0.001, help="How long a file becomes.")
    ] = ROTATE_BYTES / _MEBIBYTE,
    keep_mebibytes: Annotated[
        float, typer.Option(min=0.001, help="What may wait while the database is away.")
    ] = KEEP_BYTES / _MEBIBYTE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10091,
) -> None:
    """Add up a gateway's entries by hour and day, each once, until told to stop and all is read.

    Reads the database from DATABASE_URL. Killed at any point, it goes on where the sums are.
    """
    url = database_url()
    start_logging()
    log_start(
        "usage-collector",
        {"listens on": f"{bind_address()}:{port}", "database": url},
        {"file": str(file), "pause seconds": pause_seconds},
    )
    files = LogFiles(file, admin, int(rotate_mebibytes * _MEBIBYTE), int(keep_mebibytes * _MEBIBYTE))
    asyncio.run(_collect(url, files, source, pause_seconds, port))


async def _collect(url: str, files: LogFiles, source: str, pause_seconds: float, port: int) -> None:
    stopping = stopping_event()
    health = Health("database")
    collector = Collector(url, files, source, health, pause_seconds)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [lambda: asyncio.ensure_future(collector.run(stopping))],
    )


@app.command(epilog="Example: kilo usage count --port 10092")
def count(
    pause_seconds: Annotated[float, typer.Option(min=0.05, help="Between two looks.")] = COUNT_PAUSE_SECONDS,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10092,
) -> None:
    """Count events, encryption and storage by tenant and hour, and look after the usage tables.

    Reads the stage's outputs from KILO_OUTPUTS and the database from DATABASE_URL. Two at once count no more
    than one.
    """
    url, outputs = database_url(), load_outputs()
    start_logging()
    log_start(
        "usage-counter",
        {
            "listens on": f"{bind_address()}:{port}",
            "database": url,
            "prometheus": outputs.monitoring.prometheus_url,
        },
        {"pause seconds": pause_seconds},
    )
    asyncio.run(_count(url, outputs, pause_seconds, port))


async def _count(url: str, outputs: StackOutputs, pause_seconds: float, port: int) -> None:
    stopping = stopping_event()
    health = Health("database")
    counter = Counter(url, outputs, health, pause_seconds)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [lambda: asyncio.ensure_future(counter.run(stopping))],
    )


_Stage = Annotated[
    str | None, typer.Option("--stage", "-s", help="The stage; by default that of KILO_OUTPUTS.")
]
_Output = Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")]


@app.command(
    epilog="Examples: kilo usage report -s dev · kilo usage report --by tenant,day --since 2026-03-01 ·"
    " kilo usage report --tenant acme --by route,status --format csv"
)
def report(  # noqa: PLR0917  options, given by name
    stage: _Stage = None,
    tenant: Annotated[str | None, typer.Option(help="One tenant; all of them without it.")] = None,
    since: Annotated[str | None, typer.Option(help="First day (UTC); else that of this month.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day (UTC); else today.")] = None,
    by: Annotated[str, typer.Option(help=f"What rows are by: {', '.join(DIMENSIONS)}.")] = "tenant",
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = "table",
    output: _Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show what tenants used, and whose use is three times its usual.

    Reads the database from DATABASE_URL. Bytes are those of bodies; `hit ratio` is of data keys that lay in
    memory; `GB-hours` are what was stored for an hour each. Requests of no tenant stand as (none).
    """
    _check_stage(stage)
    today = datetime.now(UTC).date()
    asked = Asked(
        since=_day("--since", since) if since else today.replace(day=1),
        until=_day("--until", until) if until else today,
        by=tuple(each.strip() for each in by.split(",")),
        tenant=tenant,
    )
    form = "json" if as_json else form
    with open_database(database_url()) as connection:
        found = read_usage(connection, asked)
        unusual = find_anomalies(connection, asked)
    for each in unusual:
        typer.echo(f"note: {each}", err=True)
    if form != "table":
        write_rows(columns_of(asked), as_rows(found, asked), form, output)
        return
    if output is not None:
        msg = "--output: a table is for a terminal; give --format csv, json or parquet with it"
        raise BadInput(msg)
    if not found:
        typer.echo(f"nothing was used from {asked.since} to {asked.until}", err=True)
        return
    numbers, shown = _shown(found, asked)
    print_table([*asked.by, *numbers], shown, numbers=numbers)


@app.command(
    epilog="Example: kilo usage export --focus -s dev --month 2026-03 --format parquet -o costs.parquet"
)
def export(
    focus: Annotated[bool, typer.Option("--focus", help="FOCUS 1.2, the one form there is.")] = False,
    stage: _Stage = None,
    month: Annotated[
        str | None, typer.Option(help="Such as 2026-03; else this month, as far as it is.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = "csv",
    output: _Output = None,
) -> None:
    """Write what each tenant costs in a month: what it used, times the prices in the stage's file.

    What tenants share is split as their own costs are. The sum of BilledCost is the whole, to the cent. Call
    it in a checkout; it reads the database from DATABASE_URL.
    """
    if not focus:
        msg = "say --focus: the FinOps Open Cost and Usage Specification is the one form there is"
        raise BadInput(msg)
    if form == "table":
        msg = "--format table: FOCUS has too many columns for one; csv, json or parquet"
        raise BadInput(msg)
    known = _check_stage(stage)
    settings, tenants = load_usage(find_project() / f"Pulumi.{known}.yaml")
    begins = _month(month)
    asked = Asked(since=begins, until=month_bounds(begins)[1].date() - timedelta(days=1))
    with open_database(database_url()) as connection:
        used = {key[0]: each for key, each in read_usage(connection, asked).items()}
    bill = make_bill(used, tenants, settings.prices)
    rows = focus_rows(known, begins, used, bill, settings)
    write_rows(FOCUS_COLUMNS, rows, form, output)
    typer.echo(f"{bill.whole / 100:,.2f} {settings.currency} for {begins:%Y-%m}, {len(rows)} rows", err=True)


def _check_stage(stage: str | None) -> str:
    """The stage that the environment is of, which must be the one that was asked for."""
    known = load_outputs().stage
    if stage not in {None, known}:
        msg = f"--stage {stage}: the environment is that of {known}; set KILO_OUTPUTS and DATABASE_URL"
        raise BadInput(msg)
    return known


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        msg = f"{option} {text}: not a day; it takes one such as 2026-03-31"
        raise BadInput(msg) from None


def _month(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date().replace(day=1)
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        msg = f"--month {text}: not a month; it takes one such as 2026-03"
        raise BadInput(msg) from None


def _shown(found: Mapping[Key, Used], asked: Asked) -> tuple[list[str], list[list[str]]]:
    """The names of the numbers, and the rows as people read them."""
    numbers = ["requests", "5xx", "shed", "received", "sent"]
    if not asked.requests_alone:
        numbers += ["events", "crypto", "KMS", "hit ratio", "GB-hours"]
    rows: list[list[str]] = []
    for key, used in found.items():
        row = [each or "(none)" for each in key]
        row += [f"{used.requests:,}", f"{used.failed:,}", f"{used.shed:,}"]
        row += [_bytes(used.received), _bytes(used.sent)]
        if not asked.requests_alone:
            ratio = "-" if used.hit_ratio is None else f"{used.hit_ratio * 100:.1f} %"
            row += [f"{used.events:,}", f"{used.encryptions:,}", f"{used.kms_calls:,}", ratio]
            row += [f"{used.stored_gigabyte_hours:,.3f}"]
        rows.append(row)
    return numbers, rows


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
