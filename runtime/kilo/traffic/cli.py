"""``kilo gateway``: check the tenants' traffic rules, and see those in force."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kilo.tenancy import TierName
from kilo.traffic.active import read_active
from kilo.traffic.measured import read_latencies
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream
from kilo.traffic.stage_file import load_tenants, load_tiers, set_timeouts
from kilo.traffic.tuning import propose
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


def tune(
    stage_file: Annotated[Path, typer.Argument(help="The stage's configuration, such as Pulumi.prod.yaml.")],
    prometheus: Annotated[str, typer.Option(help="Where the gateway's statistics are.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="How far to look back.")] = 7,
    propose_: Annotated[
        bool, typer.Option("--propose", help="Write the proposal into the file, for a review.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Propose tiers' timeouts from what their tenants' requests took, within bounds.

    Nothing changes but the file, and that only with --propose: what it says is reviewed and deployed as any
    other change.

    Example:  kilo traffic tune Pulumi.prod.yaml --prometheus http://127.0.0.1:9090 --propose
    """
    tenants, _ = load_tenants(stage_file)
    tiers = load_tiers(stage_file)
    measured = read_latencies(prometheus, {tenant.id: tenant.tier for tenant in tenants}, days)
    proposals = propose(tiers, measured)
    changed: dict[TierName, int] = {each.tier: each.proposed_ms for each in proposals if each.changes}
    if propose_ and changed:
        set_timeouts(stage_file, changed)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in proposals]))
        return
    for each in proposals:
        step = f"{each.timeout_ms} -> {each.proposed_ms} ms" if each.changes else f"{each.timeout_ms} ms"
        typer.echo(f"{each.tier}: {step} ({each.reason})")
    if propose_ and changed:
        typer.echo(f"{stage_file}: written; review it, then pulumi preview")


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
    table = Table("tenant", "tier", "next %", "timeout ms", "retries", "requests/s", "burst")
    for tenant in tenants:
        table.add_row(
            tenant.id,
            tenant.tier,
            str(tenant.next_weight_percent),
            str(tenant.timeout_ms),
            str(tenant.retries),
            f"{tenant.requests_per_second:g}",
            str(tenant.burst),
        )
    Console().print(table)
