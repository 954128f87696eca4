"""``kilo up``, ``down``, ``status``, ``logs``, ``env`` and ``doctor``: the dev stage on this machine."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.text import Text

from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.project import find_project
from kilo.tables import print_table
from kilo.testing.servers.process import tail
from sandbox import daemon, stage
from sandbox.commands import run_kilo
from sandbox.components import ComponentStatus, components, follow, log_files
from sandbox.contexts import commands as on_context
from sandbox.doctor import examine
from sandbox.engine.environment import UNSET, shell
from sandbox.reach import ways_in

_SETTLE_SECONDS = 60.0
_SETTLE_PAUSE_SECONDS = 0.2

ContextOption = Annotated[
    str | None,
    typer.Option("--context", help="A context of your kubeconfig, instead of the sandbox's own cluster."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def up(
    tour: Annotated[bool, typer.Option(help="Run `kilo tour` and `kilo traffic tour` at the end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the tour found as JSON.")] = False,
    context: ContextOption = None,
    address: Annotated[
        str, typer.Option(help="With --context: this machine's address as the cluster's pods reach it.")
    ] = "",
    load: Annotated[
        str, typer.Option(help="With --context: what loads an image's archive, whose path is added.")
    ] = "",
) -> None:
    """Bring the dev stage up on this machine and send events through it.

    Starts the sandbox's servers, lets the Pulumi engine create the dev stage, sends events of a few tenants
    through all of it, mirrors an image, takes and drills a backup, and ramps a feature for two tenants, of
    which one is taken back by itself. Safe to run again: what is there already is left as it is.

    Examples:

      kilo up            everything, then the tour

      kilo up --no-tour  everything, without the tour

      kilo up --json | jq .total.lost

      kilo up --context kind-kind --address 172.18.0.1 --load "kind load image-archive"
    """
    if as_json and not tour:
        msg = "--json prints the tour's count, and --no-tour leaves it out: give one of them"
        raise BadInput(msg)
    if context is None and (address or load):
        msg = "--address and --load say how a cluster of yours is reached: name it with --context"
        raise BadInput(msg)
    started = time.monotonic()
    project = find_project()
    if context is not None:
        on_context.up(project, context, address, load, tour=tour, as_json=as_json)
        return
    # Before anything starts. The engine would say the same later, and end with the same code for any failure.
    run_kilo(project, "check", "--stage", stage.STAGE, quiet=True)
    opened = stage.open_stage(project)
    opened.up(sys.stderr if as_json else None)
    for name in _wait_until_healthy(project):
        typer.echo(f"{name} is not ready yet; `kilo logs {name}` may say why", err=True)
    typer.echo(
        f"dev is up after {time.monotonic() - started:.0f} s. `kilo status` shows its components.", err=True
    )
    if tour:
        run_kilo(project, "tour", *(["--json"] if as_json else []))
        if not as_json:
            typer.echo("\na feature is ramped for two tenants; for globex its next version fails", err=True)
            run_kilo(project, "traffic", "tour", "--stage", stage.STAGE)
    if endpoints := daemon.running(project):
        _print_ways_in(project, endpoints, sys.stderr if as_json else None)


def _wait_until_healthy(project: Path) -> list[str]:
    """The components that are not healthy after a while: the engine waits only for what it changes itself,
    and after a power cut it finds nothing to change while pods are still starting again."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        endpoints = daemon.running(project)
        found = components(project, endpoints) if endpoints else []
        if all(component.settled for component in found) or time.monotonic() > deadline:
            return [component.name for component in found if not component.healthy]
        time.sleep(_SETTLE_PAUSE_SECONDS)


def down(
    destroy: Annotated[
        bool,
        typer.Option("--destroy", help="Also remove the stage and its data, apart from what is protected."),
    ] = False,
    context: ContextOption = None,
) -> None:
    """Stop the dev stage; its data stays under .kilo/ and `kilo up` takes it up again.

    Examples:

      kilo down            stop every process, keep the data

      kilo down --destroy  let the engine destroy the stage first, then remove the data

      kilo down --context kind-kind   remove the stage from a cluster of yours, and its data
    """
    project = find_project()
    if context is not None:
        on_context.down(project, context)
        return
    if destroy:
        kept = stage.open_stage(project).destroy()
        if kept:
            stage.close(project)
            listed = "\n  ".join(kept)
            msg = f"these are protected, so that their data stays under .kilo/:\n  {listed}"
            raise CheckFailed(msg)
    was_running = stage.close(project)
    if destroy:
        stage.remove(project)
    typer.echo("Stopped." if was_running else "Nothing was running.", err=True)


def status(as_json: JsonOption = False, context: ContextOption = None) -> None:
    """Show the components of the dev stage (state, since when, restarts, address) and how to reach it.

    Exits with 1 when a component is not running.

    Examples:

      kilo status

      kilo status --json | jq '.[] | select(.state != "running")'
    """
    project = find_project()
    if context is not None:
        found = on_context.status(project, context)
        if as_json:
            typer.echo(json.dumps([component.as_json() for component in found], indent=2))
        else:
            _print_table(found)
        if any(not component.healthy for component in found):
            raise typer.Exit(1)
        return
    endpoints = daemon.running(project)
    found = components(project, endpoints) if endpoints else []
    if as_json:
        typer.echo(json.dumps([component.as_json() for component in found], indent=2))
    elif endpoints is None:
        typer.echo("The sandbox is not running; `kilo up` starts it.", err=True)
    else:
        _print_table(found)
        _print_ways_in(project, endpoints)
    if endpoints is None or any(not component.healthy for component in found):
        raise typer.Exit(1)


def _print_table(found: list[ComponentStatus]) -> None:
    rows = [
        (
            component.name,
            Text(component.state, style="green" if component.healthy else "red"),
            component.age(),
            component.restarts,
            component.address,
        )
        for component in found
    ]
    print_table(("component", "state", "since", "restarts", "address"), rows, numbers=("restarts",))


def _print_ways_in(project: Path, endpoints: daemon.Endpoints, to: TextIO | None = None) -> None:
    """One line for each, as long as it is: a command is copied whole."""
    ways = ways_in(project, endpoints)
    width = max((len(name) for name, _ in ways), default=0)
    for name, how in [("", ""), *ways]:
        typer.echo(f"{name:{width}}  {how}".rstrip(), file=to)


def logs(
    name: Annotated[
        str, typer.Argument(help="A component of `kilo status` or a pod, or how its name begins.")
    ],
    lines: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of the last lines.")] = 100,
    wait: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    context: ContextOption = None,
) -> None:
    """Show the log of one component.

    Examples:

      kilo logs ingest        the last lines of every ingest pod

      kilo logs -f postgres   new lines as they come

      kilo logs daemon        what the sandbox itself does
    """
    project = find_project()
    if context is not None:
        on_context.logs(project, context, name, lines, wait=wait)
        return
    files = log_files(project, name)
    if not files:
        known = ", ".join(sorted(log_files(project, ""))) or "none yet; `kilo up` starts the components"
        msg = f"no log of '{name}'; there are logs of: {known}"
        raise BadInput(msg)
    for component, path in files.items():
        if len(files) > 1:
            typer.echo(f"==> {component} <==")
        if text := tail(path, lines):
            typer.echo(text)
        elif lines:
            typer.echo("empty so far", err=True)
    if wait:
        for line in follow(list(files.values())):
            typer.echo(line, nl=False)


def env(
    start: Annotated[
        bool, typer.Option("--start", help="Start the sandbox's servers when they do not run.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object; null is a variable to unset.")
    ] = False,
    context: ContextOption = None,
) -> None:
    """Print the environment in which plain `pulumi` works on the sandbox, or on a cluster of yours.

    The sandbox has to run: `kilo up` leaves it running, and --start starts its servers alone, without
    deploying a stage. What is printed holds the URL of the sandbox's database with its password: evaluate it,
    and keep it out of logs.

    Examples:

      eval "$(kilo env)"

      eval "$(kilo env --start)"

      pulumi preview -s dev

      eval "$(kilo env --context kind-kind)"      of kilo up --context kind-kind; says where to run pulumi
    """
    project = find_project()
    if context is not None:
        if start:
            msg = "--start is for the sandbox's own stage; kilo up --context brings up a cluster's"
            raise BadInput(msg)
        variables = on_context.variables(project, context)
        typer.echo(json.dumps(dict.fromkeys(UNSET) | variables, indent=2) if as_json else shell(variables))
        return
    if not start and daemon.running(project) is None:
        msg = "the sandbox is not running: `kilo up` starts it, `kilo env --start` its servers alone"
        raise Unreachable(msg)
    opened = stage.open_stage(project)
    variables = dict(opened.variables)
    unset = dict.fromkeys(UNSET)
    typer.echo(json.dumps(unset | variables, indent=2) if as_json else shell(variables))


def doctor(as_json: JsonOption = False) -> None:
    """Check what this machine needs for the sandbox, and say what to install.

    Exits with 1 when something is missing.

    Examples:

      kilo doctor

      kilo doctor --json | jq '.[] | select(.ok | not)'
    """
    findings = examine()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = typer.style("ok", fg="green") if finding.ok else typer.style("missing", fg="red")
            typer.echo(f"{mark:>8}  {finding.what}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
