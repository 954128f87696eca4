"""``kilo sampling show | explain | allow``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from infra.check import stage_file
from infra.sampling.key_spans import allow_span
from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput
from kilo.observe import metrics
from kilo.observe.collected import read_spans
from kilo.observe.prometheus import Prometheus
from kilo.observe.sampling.explained import explain as explained
from kilo.observe.sampling.explained import read_sampled
from kilo.observe.scope import in_namespace
from kilo.project import find_project
from kilo.tables import print_table

app = typer.Typer(no_args_is_help=True, help="What of a stage's spans is kept, and why.")

_TRACE = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command(epilog="Example: kilo sampling show --json | jq '.[] | select(.because)'")
def show(as_json: JsonOption = False) -> None:
    """Show each tenant's allowance, what came and what was kept of it, those over it first.

    Reads the stage's outputs from KILO_OUTPUTS and asks its Prometheus.
    """
    outputs = load_outputs()
    allowances = {tenant: each.spans_per_second for tenant, each in outputs.tenants.items()}
    with Prometheus(outputs.monitoring.prometheus_url) as prometheus:
        found = read_sampled(prometheus, outputs.namespace, allowances)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    columns = ("tenant", "allowance/s", "seen/s", "kept/s", "keeps", "over it for")
    rows = [
        (
            each.tenant,
            each.allowance or "-",
            f"{each.seen:.1f}",
            f"{each.kept:.1f}",
            "-" if each.kept_ratio is None else f"{each.kept_ratio:.1%}",
            Text(each.because, "red") if each.because else "-",
        )
        for each in found
    ]
    print_table(columns, rows, numbers=columns[1:5])
    if all(each.kept_ratio is None for each in found):
        typer.echo("no guard has seen a span: does the stage collect traces (monitoring.traces)?", err=True)


@app.command(
    epilog="Examples: kilo sampling explain 4bf92f3577b34da6a3ce929d0e0e4736 --tenant acme · "
    "kilo sampling explain 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 --at 2026-02-20T12:00:00"
)
def explain(
    trace: Annotated[str, typer.Argument(help="A trace id of 32 hexadecimal digits, or a traceparent.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose trace it is, where no span of it was kept.")
    ] = None,
    at: Annotated[
        datetime | None, typer.Option(help="When it was (UTC); now, or when its spans were.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a trace was kept or dropped, service by service.

    From its spans in the collector's files (KILO_TRACES), and from the share that each service kept of the
    tenant's spans at the time, of which Prometheus knows. `kilo trace` tells an event's traceparent.
    """
    if not (match := _TRACE.fullmatch(trace)):
        msg = f"{trace[:80]!a}: must be a trace id of 32 lower-case hexadecimal digits, or a traceparent"
        raise BadInput(msg)
    outputs = load_outputs()
    spans = read_spans({match[1]})
    tenant = tenant or next((span.tenant for span in spans if span.tenant), None)
    if tenant is None:
        msg = "--tenant: no span of the trace is here to tell whose it is; name the tenant"
        raise BadInput(msg)
    if tenant not in outputs.tenants:
        msg = f"--tenant {tenant}: no such tenant; tenants: {', '.join(sorted(outputs.tenants)[:20])}"
        raise BadInput(msg)
    moment = at.replace(tzinfo=UTC) if at else spans[0].start if spans else datetime.now(UTC)
    found = explained(match[1], spans, _ratios(outputs, tenant, moment))
    if as_json:
        typer.echo(json.dumps({**asdict(found), "tenant": tenant, "at": moment.isoformat()}, indent=2))
        return
    typer.echo(f"{found.trace_id} of {tenant}: kept by whoever keeps {found.passes:.1%} of spans or more")
    said = {True: "kept", False: "dropped", None: "unknown"}
    print_table(
        ("service", "", "why"), [(each.service, said[each.kept], each.why) for each in found.verdicts]
    )
    if not found.verdicts:
        typer.echo("nothing is known: no span of it is here, and no guard told Prometheus of the tenant then")


def _ratios(outputs: StackOutputs, tenant: str, at: datetime) -> dict[str, float]:
    matcher = f'{in_namespace(outputs.namespace)}, tenant="{tenant}"'
    query = f"min by (job) ({metrics.SAMPLING_KEPT_RATIO.name}{{{matcher}}})"
    with Prometheus(outputs.monitoring.prometheus_url) as prometheus:
        return {each.labels["job"]: each.value for each in prometheus.query(query, at.timestamp())}


@app.command(epilog='Example: kilo sampling allow "POST /v1/payments" -s prod')
def allow(
    span: Annotated[str, typer.Argument(help="A span's name, as traces show it.")],
    stage: Annotated[str, typer.Option("--stage", "-s", help="The stage whose file is meant.")],
) -> None:
    """Keep spans of a name before all others, within a fifth of each tenant's allowance.

    Writes monitoring.key_spans of the stage's file and leaves every other character as it is; the next
    deployment puts it in force.
    """
    file = stage_file(find_project(), stage)
    if allow_span(file, span):
        typer.echo(f"{file.name} has it. See what changes: kilo preview-diff -s {stage}", err=True)
    else:
        typer.echo(f"{file.name}: monitoring.key_spans has {span!r} already", err=True)
