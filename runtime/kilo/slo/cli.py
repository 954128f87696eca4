"""``kilo slo``: how tenants' objectives stand, in and out of OpenSLO, and as series for the rules."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry
from rich.text import Text

from kilo.contract import load_outputs
from kilo.environment import bind_address
from kilo.errors import BadInput, Unreachable
from kilo.health import HealthServer
from kilo.observe.logs import start_logging
from kilo.observe.prometheus import Prometheus
from kilo.service import log_start
from kilo.slo.exporter import ObjectiveCollector
from kilo.slo.openslo import read_openslo, render_openslo
from kilo.slo.status import Standing, read_standings
from kilo.tables import print_table

app = typer.Typer(no_args_is_help=True, help="Tenants' objectives: how they stand, in and out of OpenSLO.")

_SHOWN = 40
_DAY_SECONDS, _HOUR_SECONDS = 86_400, 3_600
_Tenant = Annotated[str | None, typer.Argument(help="One tenant; all of them without it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command(epilog="Examples: kilo slo status · kilo slo status acme --json | jq '.[].burn_6h'")
def status(
    tenant: _Tenant = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"More than the {_SHOWN} with the least left.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Show what is left of each budget, how fast it burns, and when at that pace it is used up.

    Reads the stage's outputs from KILO_OUTPUTS and its records from Prometheus.
    """
    standings = _standings(tenant)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in standings], indent=2))
        return
    columns = (
        "tenant",
        "objective",
        "promised",
        "left of 30 d",
        "of the month",
        "burn 1 h",
        "burn 6 h",
        "gone in",
    )
    shown = standings if every else standings[:_SHOWN]
    print_table(columns, [_row(each) for each in shown], numbers=columns[2:])
    if len(shown) < len(standings):
        typer.echo(f"{len(standings) - len(shown)} more have as much left or more: --all", err=True)


@app.command("list", epilog="Example: kilo slo list --json | jq '.[] | select(.target > 0.999)'")
def list_(as_json: _Json = False) -> None:
    """Show what every tenant is promised, as the stage's rules have it."""
    standings = sorted(_standings(None), key=lambda each: (each.tenant, each.objective))
    if as_json:
        fields = ("tenant", "objective", "target", "threshold_ms")
        typer.echo(
            json.dumps([{name: getattr(each, name) for name in fields} for each in standings], indent=2)
        )
        return
    rows = [(each.tenant, each.objective, _promise(each)) for each in standings]
    print_table(("tenant", "objective", "promised"), rows)


@app.command(epilog="Example: kilo slo export > objectives.yaml")
def export(tenant: _Tenant = None) -> None:
    """Print what tenants are promised as OpenSLO v1 documents."""
    outputs = load_outputs()
    typer.echo(render_openslo(_standings(tenant), outputs.namespace), nl=False)


@app.command("import", epilog="Example: kilo slo import objectives.yaml")
def import_(
    file: Annotated[Path, typer.Argument(help="OpenSLO v1 documents, two a tenant.")], as_json: _Json = False
) -> None:
    """Check OpenSLO v1 documents and print them as the `objective` of each tenant's entry in a stage's file.

    The stage's file stays a person's to change: what is promised is reviewed with it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: can't be read: {error}"
        raise BadInput(msg) from error
    found = read_openslo(text, str(file))
    if as_json:
        typer.echo(json.dumps({tenant: each.model_dump() for tenant, each in found.items()}, indent=2))
        return
    for tenant, each in found.items():
        inside = ", ".join(f"{name}: {value:g}" for name, value in each.model_dump().items())
        typer.echo(f"{tenant}:  objective: {{ {inside} }}")


def _standings(tenant: str | None) -> list[Standing]:
    outputs = load_outputs()
    if tenant is not None and tenant not in outputs.tenants:
        msg = f"{tenant}: the stage has no such tenant; tenants: {', '.join(sorted(outputs.tenants)[:20])}"
        raise BadInput(msg)
    with Prometheus(outputs.monitoring.prometheus_url) as prometheus:
        standings = read_standings(prometheus, outputs.namespace, tenant)
    if not standings:
        msg = "nothing is recorded of promises yet; it takes a minute after the stage came up"
        raise Unreachable(msg)
    return standings


def _row(standing: Standing) -> list[Text]:
    spent = standing.left_30d is not None and standing.left_30d <= 0
    values = (
        standing.tenant,
        standing.objective,
        _promise(standing),
        _percent(standing.left_30d),
        _percent(standing.left_month),
        _times(standing.burn_1h),
        _times(standing.burn_6h),
        "used up" if spent else _duration(standing.exhausted_in_seconds),
    )
    return [Text(value, style="red" if spent else "") for value in values]


def _promise(standing: Standing) -> str:
    share = f"{standing.target * 100:g} %"
    return f"{share} < {standing.threshold_ms} ms" if standing.threshold_ms else share


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


def _times(burn: float | None) -> str:
    return "-" if burn is None else f"{burn:.1f}x"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 2 * _DAY_SECONDS:
        return f"{seconds / _DAY_SECONDS:.0f} d"
    return f"{seconds / _HOUR_SECONDS:.1f} h"


@app.command(epilog="Example: kilo slo exporter --file objectives.json --port 10088")
def exporter(
    file: Annotated[Path, typer.Option(help="The objectives that the program rendered.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10088,
) -> None:
    """Export every tenant's objectives and limit as series, until told to stop.

    Reads the file at each scrape: a tenant that comes, changes or goes needs no restart.
    """
    start_logging()
    registry = CollectorRegistry()
    registry.register(ObjectiveCollector(file))
    log_start("objectives-exporter", {"listens on": f"{bind_address()}:{port}"}, {"file": str(file)})
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with HealthServer(port, registry):
        stopping.wait()
