"""``kilo dash``: the dashboards in a browser on this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Annotated

import typer
import uvicorn

from kilo.contract import load_outputs
from kilo.dash.reading import Reading
from kilo.dash.server import make_app
from kilo.errors import BadInput, KiloError
from kilo.project import find_project


def dash(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8390,
) -> None:
    """Serve the stage's dashboards on this machine until Ctrl-C: the panels that Grafana gets.

    Reads the stage's outputs from KILO_OUTPUTS and its Prometheus. On a cluster forward Prometheus' port
    first and write its address into the outputs' monitoring.prometheus_url.

    Example:  kilo dash
    """
    outputs = load_outputs()
    runbooks = None
    with suppress(KiloError):
        runbooks = find_project() / "docs" / "runbooks"
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        msg = f"--port {port}: can't listen on 127.0.0.1: {error.strerror}"
        raise BadInput(msg) from error
    app = make_app(Reading(outputs), runbooks if runbooks and runbooks.is_dir() else None)
    typer.echo(f"{outputs.stage} at http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends it)", err=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([listener])
