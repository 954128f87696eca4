"""Which ramps a command means, and what they would do: arguments read, plans printed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence

import typer

from infra.ramps.run import Setting
from infra.ramps.stage_file import RampFile
from kilo.errors import BadInput
from kilo.tenancy import RampWeight
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.gate import GateSettings


def tenants_and_feature(
    file: RampFile, names: Sequence[str], tier: str | None, *, everyone: bool
) -> tuple[list[str], str]:
    """The tenants and the feature that the arguments mean.

    Raises:
        BadInput: too many names or too few, a feature or tenant that the stage's file does not have.
    """
    group = tier is not None or everyone
    if len(names) != (1 if group else 2) or (tier is not None and everyone):
        msg = "name a tenant and a feature, or a feature with --tier or --all"
        raise BadInput(msg)
    feature = names[-1]
    known = [each.id for each in file.settings.features]
    if feature not in known:
        msg = f"{file.path.name}: there is no feature '{feature}'; features: {', '.join(known) or 'none'}"
        raise BadInput(msg)
    if not group:
        return [file.tenant(names[0]).id], feature
    tenants = [entry.id for entry in file.settings.tenants if everyone or entry.tier == tier]
    if not tenants:
        msg = f"--tier: no tenant is {tier}; tiers: gold, silver, bronze"
        raise BadInput(msg)
    return tenants, feature


def print_plans(
    setting: Setting,
    feature: str,
    plans: Mapping[str, Sequence[RampWeight]],
    gate: GateSettings,
    *,
    as_json: bool,
) -> None:
    """Print for each tenant the weights on the way and how long it takes at the soonest."""
    frozen = Freezes(setting.file.settings.freezes).reason(time.time())
    for tenant, steps in plans.items():
        objective = setting.file.tenant(tenant).objective
        seconds = gate.hold_seconds * len(steps)
        if as_json:
            typer.echo(
                json.dumps(
                    {
                        "tenant": tenant,
                        "feature": feature,
                        "weight": setting.file.weights.get((tenant, feature), 0),
                        "steps": steps,
                        "hold_seconds": gate.hold_seconds,
                        "minimum_requests": gate.minimum_requests,
                        "at_least_seconds": seconds,
                        "frozen": frozen or None,
                    }
                )
            )
            continue
        way = " → ".join(map(str, (setting.file.weights.get((tenant, feature), 0), *steps)))
        typer.echo(
            f"{tenant} {feature}: {way}, {gate.hold_seconds:g} s and {gate.minimum_requests} requests each, "
            f"{seconds:g} s at the soonest; reverted when worse than stable and burning "
            f"{objective.availability_percent} % or {objective.latency_percent} % within "
            f"{objective.latency_threshold_ms} ms"
        )
    if frozen and not as_json:
        typer.echo(f"now {frozen}: the first step waits for its end", err=True)


def hold_seconds(text: str) -> float:
    """``30s``, ``10m`` or ``2h`` in seconds."""
    match = re.fullmatch(r"(\d+)(s|m|h)", text)
    if not match:
        msg = f"--hold: '{text}' is no duration; use 30s, 10m or 2h"
        raise BadInput(msg)
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
