"""``kilo tour``: events through the whole path, an image through the mirror, a backup through a drill."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kilo.contract import StackOutputs, load_outputs
from kilo.errors import CheckFailed, Unreachable
from kilo.tables import make_console
from kilo.tour.artifacts import Artifacts, show_artifacts
from kilo.tour.artifacts import as_table as artifacts_table
from kilo.tour.count import TenantCount, count, wait_delivered
from kilo.tour.events import KEY, Event, make_events, read_events
from kilo.tour.report import as_json, as_table, total
from kilo.tour.sender import Answer, send_all
from kilo.tour.surge import Surged, choose, surge, surge_document, surge_problems, surge_table

_EVENTS_EACH = 100
_FINGERPRINTS_SHOWN = 3


def tour(
    events: Annotated[
        Path | None, typer.Option(help="Send these events (newline-delimited JSON) instead of made-up ones.")
    ] = None,
    count_each: Annotated[
        int, typer.Option("--count", min=1, max=100_000, help="How many events to make up a tenant.")
    ] = _EVENTS_EACH,
    timeout_seconds: Annotated[
        float,
        typer.Option("--timeout", min=1, help="Seconds without progress until what has not arrived is lost."),
    ] = 120.0,
    events_only: Annotated[
        bool, typer.Option("--events-only", help="Push no image and take no backup.")
    ] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Send events through the whole path and count what arrives; mirror an image; back up and restore.

    Events go over HTTP through the gateway to ingest, from there with their business row into the outbox,
    by the worker or by change capture onto the bus, and to the consumer. The table says for each tenant what
    became of them. Reads the stage's outputs from the file that KILO_OUTPUTS names and counts in the database
    of DATABASE_URL; `eval "$(kilo env)"` sets both for the sandbox.

    Then one tenant asks for far more than its limit for three seconds: its refusals are counted, and whether
    the others were served meanwhile. An image with its attestations is pushed to the primary registry, and
    the lag of the mirror and the parity of both registries are shown; and a backup of the database goes into
    both stores and is restored from each into an empty scratch server. With events of your own, or with
    --events-only, all three are left out.

    Exits with 1 when an acknowledged event was lost or altered, a field that the stage encrypts lies in the
    clear, an event was refused, a surge reached other tenants, the image did not arrive whole, or a backup
    did not prove itself.

    Examples:

      kilo tour

      kilo tour --events orders.ndjson --json

      echo '{"tenant": "acme", "aggregate": "order", "aggregate_id": "1", "kind": "order.created",
      "payload": {"total": 12}}' > one.ndjson && kilo tour --events one.ndjson
    """
    outputs = load_outputs()
    database = os.environ.get("DATABASE_URL")
    if not database:
        msg = 'DATABASE_URL is not set, and the tour counts in the database; run `eval "$(kilo env)"` first'
        raise Unreachable(msg)
    tenants = sorted(name for name, tenant in outputs.tenants.items() if tenant.accepting)
    if not (events or tenants):
        msg = f"no tenant of {outputs.stage} takes requests: every entry has accepting: false"
        raise CheckFailed(msg)
    sent = (
        read_events(events, outputs.outbox.payload_limit_bytes)
        if events
        else make_events(tenants, count_each * len(tenants))
    )
    answers = _send_and_wait(outputs, database, sent, timeout_seconds)
    fields = {name: tenant.encrypted_fields for name, tenant in outputs.tenants.items()}
    counts = count(database, answers, fields)
    console = make_console()
    if not as_json_:
        _print_counts(console, counts, answers)
    surging, surged = (None, {}) if events_only or events else _surge(outputs, tenants)
    artifacts = None if events_only or events else _mirror_and_back_up(outputs, database, timeout_seconds)
    if as_json_:
        _print_json(counts, answers, artifacts, surged)
    else:
        if surging:
            console.print(surge_table(surged, surging))
            console.print()
        if artifacts:
            console.print(artifacts_table(artifacts))
            console.print()
        _print_places(console, outputs)
        _print_fingerprints(answers)
    whole = total(counts)
    found = ((whole.lost, "lost"), (whole.altered, "altered"), (whole.refused, "refused"))
    failures = [f"{number} {what}" for number, what in found if number]
    if whole.plain:
        in_clear = ", ".join(f"{name} {number} times" for name, number in sorted(whole.plain.items()))
        failures.append(f"values in the clear that should be encrypted: {in_clear}")
    problems = [f"of {whole.sent} events: {'; '.join(failures)}"] if failures else []
    problems += surge_problems(surged, surging) if surging else ()
    problems += artifacts.problems if artifacts else ()
    if problems:
        raise CheckFailed("; ".join(problems))


def _surge(outputs: StackOutputs, tenants: Sequence[str]) -> tuple[str | None, dict[str, Surged]]:
    """Whose surge it was, and what everybody met; nobody's where one tenant is alone."""
    if len(tenants) < 2:
        return None, {}
    surging = choose({name: outputs.tenants[name].tier for name in tenants})
    gateway = outputs.gateway
    return surging, asyncio.run(surge(gateway.url, gateway.tenant_header, tenants, surging))


def _mirror_and_back_up(outputs: StackOutputs, database: str, timeout_seconds: float) -> Artifacts:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        return show_artifacts(
            outputs,
            database,
            timeout_seconds=timeout_seconds,
            progress=lambda said: progress.update(task, description=said),
        )


def _send_and_wait(
    outputs: StackOutputs, database: str, events: Sequence[Event], timeout_seconds: float
) -> list[Answer]:
    answered: list[Answer] = []
    try:
        return _send_and_wait_shown(outputs, database, events, timeout_seconds, answered)
    except KeyboardInterrupt:
        taken = sum(answer.acknowledged for answer in answered)
        refused = len(answered) - taken
        typer.echo(
            f"interrupted: of {len(events)} events {taken} are acknowledged and will be delivered, {refused} "
            f"were refused, {len(events) - len(answered)} have no answer; those may be stored or not, and "
            f"are stored once if they are sent again with the same {KEY}",
            err=True,
        )
        raise


class _Rate(ProgressColumn):
    """Events a second, lately."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


def _send_and_wait_shown(
    outputs: StackOutputs,
    database: str,
    events: Sequence[Event],
    timeout_seconds: float,
    answered: list[Answer],
) -> list[Answer]:
    """The answers in the events' order; ``answered`` is filled as they come."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        sending = progress.add_task("sending", total=len(events))

        def note(answer: Answer) -> None:
            answered.append(answer)
            progress.advance(sending)

        answers = asyncio.run(
            send_all(
                outputs.gateway.url,
                outputs.gateway.tenant_header,
                events,
                timeout_seconds=timeout_seconds,
                answered=note,
            )
        )
        acknowledged = sum(answer.acknowledged for answer in answers)
        arriving = progress.add_task("arriving", total=acknowledged)
        wait_delivered(
            database,
            answers,
            timeout_seconds=timeout_seconds,
            progress=lambda arrived: progress.update(arriving, completed=arrived),
        )
    return answers


def _refusals(answers: Sequence[Answer]) -> list[str]:
    return [f"{answer.event.place}: {answer.refusal}" for answer in answers if answer.refusal]


def _fingerprints(answers: Sequence[Answer]) -> dict[str, list[str]]:
    """The acknowledged events' by tenant; lines of a file that share a key are one event."""
    found: dict[str, dict[str, None]] = {}
    for answer in answers:
        if answer.fingerprint:
            found.setdefault(answer.event.tenant, {})[answer.fingerprint] = None
    return {tenant: list(each) for tenant, each in sorted(found.items())}


def _print_fingerprints(answers: Sequence[Answer]) -> None:
    """A few for each tenant, as commands, each on a line of its own however long: they are copied whole."""
    for tenant, fingerprints in _fingerprints(answers).items():
        typer.echo(f"\n{tenant}: {len(fingerprints):,} events; --json lists them all")
        for fingerprint in fingerprints[:_FINGERPRINTS_SHOWN]:
            typer.echo(f"  kilo trace {shlex.quote(fingerprint)} --tenant {shlex.quote(tenant)}")
        typer.echo(f"  kilo events find --tenant {shlex.quote(tenant)}")


def _print_json(
    counts: Mapping[str, TenantCount],
    answers: Sequence[Answer],
    artifacts: Artifacts | None,
    surged: Mapping[str, Surged] | None = None,
) -> None:
    document: dict[str, object] = {
        "tenants": {tenant: as_json(line) for tenant, line in sorted(counts.items())},
        "total": as_json(total(counts)),
        "refusals": _refusals(answers),
        "fingerprints": _fingerprints(answers),
    }
    if surged:
        document["surge"] = surge_document(surged)
    if artifacts:
        document["artifacts"] = artifacts.document()
    typer.echo(json.dumps(document, indent=2))


def _print_counts(console: Console, counts: Mapping[str, TenantCount], answers: Sequence[Answer]) -> None:
    console.print(as_table(counts))
    for refusal in _refusals(answers):
        console.print(f"[red]refused[/] {refusal}", highlight=False)
    console.print()


def _print_places(console: Console, outputs: StackOutputs) -> None:
    console.print(f"outputs     {os.environ.get('KILO_OUTPUTS', '')}", highlight=False)
    # Debian's Prometheus comes without its pages: these are of its API, which every build serves.
    prometheus = outputs.monitoring.prometheus_url
    console.print(f"metrics     {prometheus}/api/v1/query?query=up", highlight=False)
    console.print(f"alerts      {prometheus}/api/v1/alerts", highlight=False)
    console.print("logs        kilo logs NAME, names in `kilo status`", highlight=False)
