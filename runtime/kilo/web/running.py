"""Runs a service: configuration, logs, traces, health, its application and its background work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount

from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.observe.tracing import export_spans
from kilo.service import (
    health_routes,
    log_start,
    run_to_end,
    serve_until_stopped,
    stopping_event,
)
from kilo.web.tenants import AsgiApp, for_tenants


def run(
    app: AsgiApp,
    *,
    name: str,
    port: int,
    outputs: StackOutputs | Path | None = None,
    health: Health | None = None,
    work: Sequence[Callable[[asyncio.Event], asyncio.Future[None]]] = (),
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; requests that run are finished first.

    Args:
        app: any ASGI application.
        name: the service's, for logs, spans and metrics.
        port: where to listen, on the pod's address (``POD_IP``) or on loopback.
        outputs: the stage's, or the file that they are in; by default the file that ``KILO_OUTPUTS`` names.
        health: why the service is not ready, where it has such reasons; ready from its start on otherwise.
        work: what runs beside the requests: each is called with the event that is set when it has to end.

    Raises:
        BadInput: the outputs are not of this contract.
        Unreachable: the outputs can't be read, or the port can't be listened on.
    """
    known = outputs if isinstance(outputs, StackOutputs) else load_outputs(outputs)
    start_logging()
    log_start(name, {"listens on": f"{bind_address()}:{port}"}, {"tenants": len(known.tenants)})
    export_spans(name)
    served = Starlette(
        routes=[*health_routes(health or Health()), Mount("/", for_tenants(app, known, name=name))]
    )
    run_to_end(_serve(served, port, work))


async def _serve(
    app: Starlette, port: int, work: Sequence[Callable[[asyncio.Event], asyncio.Future[None]]]
) -> None:
    stopping = stopping_event()
    await serve_until_stopped(app, port, stopping, [lambda each=each: each(stopping) for each in work])
