"""``kilo gateway``: check the tenants' traffic rules, and see those in force."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilo.tables import print_table
from kilo.traffic.active import read_active
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream
from kilo.traffic.stage_file import load_tenants
from kilo.traffic.validation import render_whole
from kilo.traffic.validation import validate as ask_envoy

app = typer.Typer(no_args_is_help=True, help="Check the tenants' traffic rules, and see those in force.")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def validate(
    stage_file: Annotated[Path, typer.Argument(help="The stage's configuration, such as Pulumi.dev.yaml.")],
    envoy: Annotated[str, typer.Option(help="The Envoy executable that judges.")] = "envoy",
    as_json: AsJson = False,
) -> None:
    """Render the gateway from a stage's tenants and have the real Envoy judge it.

    Exits with 1 when Envoy refuses it.

    Example:  kilo gateway validate Pulumi.prod.yaml
    """
    tenants, found = load_tenants(stage_file)
    # Addresses don't matter to validity; a next version is there, so that every weight is allowed.
    service = Upstream(host="ingest.invalid", port=10081)
    features = tuple(GatewayFeature(id=one.id, routes=one.routes, next=service) for one in found)
    ask_envoy(render_whole(tenants, GatewaySettings(stable=service, next=service, features=features)), envoy)
    if as_json:
        typer.echo(json.dumps({"valid": True, "tenants": len(tenants)}))
    else:
        typer.echo(f"{stage_file}: envoy accepts the gateway of {len(tenants)} tenants")


@app.command()
def show(
    operations_url: Annotated[str, typer.Argument(help="A gateway's operations listener.")],
    as_json: AsJson = False,
) -> None:
    """Show what a running gateway has in force for each tenant, by its own account.

    Example:  kilo gateway show http://127.64.0.10:10090
    """
    tenants = read_active(operations_url)
    if as_json:
        typer.echo(json.dumps([asdict(tenant) for tenant in tenants]))
        return
    numbers = ("next %", "timeout ms", "retries", "requests/s", "burst")
    rows = [
        (
            tenant.id,
            tenant.tier,
            tenant.next_weight_percent,
            tenant.timeout_ms,
            tenant.retries,
            f"{tenant.requests_per_second:g}",
            tenant.burst,
        )
        for tenant in tenants
    ]
    print_table(("tenant", "tier", *numbers), rows, numbers=numbers)
