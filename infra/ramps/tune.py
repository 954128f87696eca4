"""``kilo traffic tune``: tiers' timeouts from what was measured, proposed in the stage's file for review."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilo.tenancy import TierName
from kilo.traffic.measured import read_latencies
from kilo.traffic.stage_file import load_tenants, load_tiers, set_timeouts
from kilo.traffic.tuning import propose


def tune(
    stage_file: Annotated[Path, typer.Argument(help="The stage's configuration, such as Pulumi.prod.yaml.")],
    prometheus: Annotated[str, typer.Option(help="Where the gateway's statistics are.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="How far to look back.")] = 7,
    propose_: Annotated[
        bool, typer.Option("--propose", help="Write the proposal into the file, for a review.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
