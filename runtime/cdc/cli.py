"""``kilo cdc``: what change capture is configured with."""

from __future__ import annotations

import typer

from runtime.cdc.properties import ConnectorSettings, render_connector, render_properties
from runtime.contract import load_outputs

app = typer.Typer(no_args_is_help=True, help="Change capture's configuration.")


@app.callback()
def _group() -> None:
    """Change capture's configuration."""


@app.command()
def connector() -> None:
    """Print connector.json for a Kafka Connect installation with Debezium's PostgreSQL connector.

    Its workers need config.providers=env with EnvVarConfigProvider, and DATABASE_HOST, DATABASE_PORT,
    DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD in their environment. Reads KILO_OUTPUTS.

    Example:  kilo cdc connector > connector.json
    """
    typer.echo(render_connector(_settings()), nl=False)


@app.command()
def properties() -> None:
    """Print application.properties for Debezium Server, for the bus that the stage's URL names.

    Reads KILO_OUTPUTS.

    Example:  kilo cdc properties > config/application.properties
    """
    typer.echo(render_properties(_settings()), nl=False)


def _settings() -> ConnectorSettings:
    outputs = load_outputs()
    return ConnectorSettings(outputs.bus, outputs.outbox)
