"""``kilo slo``: tenants' objectives as series for the rules."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from kilo.environment import bind_address
from kilo.health import HealthServer
from kilo.service import log_start, start_logging
from kilo.slo.exporter import ObjectiveCollector

app = typer.Typer(no_args_is_help=True, help="Tenants' objectives: as series for the rules.")


@app.callback()
def _group() -> None:
    """Tenants' objectives."""


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
