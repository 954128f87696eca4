"""``kilo alerts``: what fires in a stage, since when, and what to do about it.

Prometheus is asked, which knows what fires. Who was told and what is silenced, Alertmanager knows.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from kilo.contract import load_outputs
from kilo.errors import BadInput
from kilo.observe.prometheus import Prometheus
from kilo.tables import print_table

_HIDDEN = frozenset({"alertname", "severity", "tenant", "namespace", "stage", "job", "instance"})
_SUBSECONDS = re.compile(r"\.\d+")
_MINUTE_SECONDS, _HOUR_SECONDS, _DAY_SECONDS = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires, or is about to."""

    name: str
    state: str
    """``firing``, or ``pending`` for as long as its condition has not held long enough."""
    severity: str
    tenant: str | None
    about: str
    """Its other labels, such as ``slot=outbox``."""
    since: datetime
    """When its condition began to hold."""
    summary: str
    runbook: str


def read_firing(prometheus: Prometheus, namespace: str) -> list[Firing]:
    """What fires or is pending in a stage: pages first, the longest first."""
    found = [
        _firing(each)
        for each in prometheus.get("alerts")["alerts"]
        if each["labels"].get("namespace") == namespace
    ]
    return sorted(
        found, key=lambda each: (each.state != "firing", each.severity != "page", each.since, each.name)
    )


def alerts(
    stage: Annotated[
        str | None,
        typer.Option("--stage", "-s", help="The stage that is meant; refused where another is up."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Also what has not lasted long enough to fire.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what fires in the stage, since when, and the runbook that says what to do.

    Reads the stage's outputs from KILO_OUTPUTS and asks its Prometheus. Exit code 0 whether or not something
    fires, 3 when Prometheus does not answer.

    Examples:  kilo alerts  ·  kilo alerts -s dev --json | jq -r '.[].runbook'
    """
    outputs = load_outputs()
    if stage is not None and stage != outputs.stage:
        msg = (
            f"--stage {stage}: the outputs here are of {outputs.stage}; set KILO_OUTPUTS to those of {stage}"
        )
        raise BadInput(msg)
    if tenant is not None and tenant not in outputs.tenants:
        msg = f"--tenant {tenant}: no such tenant; tenants: {', '.join(sorted(outputs.tenants)[:20])}"
        raise BadInput(msg)
    with Prometheus(outputs.monitoring.prometheus_url) as prometheus:
        found = [
            each
            for each in read_firing(prometheus, outputs.namespace)
            if (pending or each.state == "firing") and tenant in {None, each.tenant}
        ]
    if as_json:
        typer.echo(
            json.dumps([{**asdict(each), "since": each.since.isoformat()} for each in found], indent=2)
        )
        return
    if not found:
        typer.echo("nothing fires")
        return
    now = datetime.now(UTC)
    columns = ("alert", "tenant", "about", "since", "runbook")
    print_table(columns, [_row(each, now) for each in found])


def _firing(each: dict[str, Any]) -> Firing:
    labels, annotations = each["labels"], each.get("annotations") or {}
    about = (f"{name}={value}" for name, value in sorted(labels.items()) if name not in _HIDDEN)
    return Firing(
        name=labels["alertname"],
        state=each["state"],
        severity=labels.get("severity", ""),
        tenant=labels.get("tenant"),
        about=", ".join(about),
        # Go writes nine digits of a second, and Python reads six.
        since=datetime.fromisoformat(_SUBSECONDS.sub("", each["activeAt"])),
        summary=annotations.get("summary", ""),
        runbook=annotations.get("runbook_url", ""),
    )


def _row(each: Firing, now: datetime) -> list[Text]:
    colour = {"page": "red", "ticket": "yellow"}.get(each.severity, "") if each.state == "firing" else "dim"
    name = each.name if each.state == "firing" else f"{each.name} ({each.state})"
    ago = _ago((now - each.since).total_seconds())
    return [Text(name, colour), *map(Text, (each.tenant or "-", each.about or "-", ago, each.runbook))]


def _ago(seconds: float) -> str:
    if seconds < 2 * _MINUTE_SECONDS:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 2 * _HOUR_SECONDS:
        return f"{seconds / _MINUTE_SECONDS:.0f} min"
    if seconds < 2 * _DAY_SECONDS:
        return f"{seconds / _HOUR_SECONDS:.0f} h"
    return f"{seconds / _DAY_SECONDS:.0f} d"
