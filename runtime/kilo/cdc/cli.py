"""``kilo cdc``: what change capture is configured with, and whether it moves."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kilo.bus.access import Access, Shown
from kilo.bus.cloudevents import source_of
from kilo.cdc.properties import (
    CONNECTOR_PATH,
    ConnectorSettings,
    render_connector,
    render_properties,
)
from kilo.cdc.tunnel import Tunnel
from kilo.cdc.watch import STALLED_SECONDS, ConnectorWatch
from kilo.contract import load_outputs
from kilo.environment import bind_address, database_url
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.service import health_routes, log_start, serve_until_stopped, stopping_event

app = typer.Typer(no_args_is_help=True, help="Change capture: its configuration, and whether it moves.")


@app.callback()
def _group() -> None:
    """Change capture: its configuration, and whether it moves."""


@app.command()
def watch(
    connector: Annotated[str, typer.Option(help="URL of the connector's own liveness.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health and metrics.")] = 10087,
    tunnel_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port at which the connector reaches a bus with TLS, plainly."),
    ] = None,
    stalled_seconds: Annotated[
        float, typer.Option(min=5, help="How long WAL may wait without progress.")
    ] = STALLED_SECONDS,
) -> None:
    """Answer a liveness probe for a connector that runs beside this: at /livez/connector, 200 or 503.

    503 when the connector does not call itself alive, and when its slot has WAL to read of which nothing
    was confirmed, decoded or delivered for so long. Reads KILO_OUTPUTS and DATABASE_URL, and for a tunnel
    KILO_BUS_CA and KILO_BUS_NAME.

    Example:  kilo cdc watch --connector http://127.0.0.1:10085/q/health/live
    """
    url, outputs = database_url(), load_outputs()
    slot = outputs.outbox.replication_slot
    tunnel = None
    if tunnel_port:
        tunnel = Tunnel(bind_address(), tunnel_port, outputs.bus.url, Access.from_environment)
    start_logging()
    log_start(
        "cdc-watch",
        {"listens on": f"{bind_address()}:{port}", "database": url, "connector": connector},
        {"slot": slot, "seconds without progress": stalled_seconds},
    )
    health = Health("database")
    asyncio.run(_watch(ConnectorWatch(url, slot, connector, health, stalled_seconds), health, port, tunnel))


async def _watch(watched: ConnectorWatch, health: Health, port: int, tunnel: Tunnel | None) -> None:
    stopping = stopping_event()

    async def alive(_request: Request) -> Response:
        reason = watched.reason
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    await serve_until_stopped(
        Starlette(routes=[*health_routes(health), Route(CONNECTOR_PATH, alive)]),
        port,
        stopping,
        [
            lambda: asyncio.ensure_future(watched.run(stopping)),
            *([lambda: asyncio.ensure_future(tunnel.run(stopping))] if tunnel else []),
        ],
    )


@app.command()
def connector() -> None:
    """Print connector.json for a Kafka Connect installation with Debezium's PostgreSQL connector.

    Its workers need config.providers=env with EnvVarConfigProvider, and DATABASE_HOST, DATABASE_PORT,
    DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD in their environment. Reads KILO_OUTPUTS.

    Example:  kilo cdc connector > connector.json
    """
    typer.echo(render_connector(_settings("password")), nl=False)


@app.command()
def properties(
    shown: Annotated[Shown, typer.Option(help="By what Kafka knows its users.")] = "password",
) -> None:
    """Print application.properties for Debezium Server, for the bus that the stage's URL names.

    Reads KILO_OUTPUTS. Where the bus has users, Debezium needs BUS_USER and BUS_PASSWORD in its environment,
    for Kafka also BUS_CA, a file, or BUS_CERTIFICATE and BUS_KEY in PEM. For tokens it needs BUS_TOKEN_URL,
    BUS_TOKEN_CA, a file, BUS_TOKEN_SCOPE if there is one, and in JAVA_OPTS
    -Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=URL; for Amazon's, an AWS identity and aws-msk-iam-auth.

    Example:  kilo cdc properties > config/application.properties
    """
    typer.echo(render_properties(_settings(shown)), nl=False)


def _settings(shown: Shown) -> ConnectorSettings:
    outputs = load_outputs()
    return ConnectorSettings(
        outputs.bus,
        outputs.outbox,
        schema=outputs.database.schema_name,
        source=source_of(outputs.stage),
        bus_shown=shown if "cdc" in outputs.bus.role_secrets else None,
    )
