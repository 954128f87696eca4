"""``kilo up``, ``down``, ``status`` and ``logs`` with ``--context``: on a cluster of the user's."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import typer

from kilo.errors import BadInput, Unreachable
from kilo.testing.servers.process import tail
from sandbox import daemon, stage
from sandbox.commands import run_kilo
from sandbox.components import ComponentStatus, log_files, of_pod, servers
from sandbox.contexts.home import ContextHome
from sandbox.contexts.kubectl import Kubectl
from sandbox.contexts.objects import GATEWAY_PORT, RELAY
from sandbox.contexts.stage import engine_variables, open_context, remove


def up(checkout: Path, context: str, address: str, load: str, *, tour: bool, as_json: bool) -> None:
    """Bring the stage up on the context's cluster, and send events through it."""
    started = time.monotonic()
    run_kilo(checkout, "check", "--stage", stage.STAGE, quiet=True)
    opened = open_context(ContextHome(checkout, context), address, load)
    opened.up(sys.stderr if as_json else None)
    typer.echo(f"dev is up on {context} after {time.monotonic() - started:.0f} s.", err=True)
    if tour:
        with opened.gateway_here():
            run_kilo(opened.project, "tour", *(["--json"] if as_json else []))
    if not as_json:
        on_cluster = f"kubectl --context {context} -n {opened.home.namespace}"
        typer.echo(f"gateway  {on_cluster} port-forward deployment/{RELAY} {GATEWAY_PORT}")


def variables(checkout: Path, context: str) -> dict[str, str]:
    """The environment in which plain ``pulumi`` works on the context's stage, in the stage's own folder.

    Nothing of the stage is changed.

    Raises:
        BadInput: no stage was brought up on the context.
        Unreachable: its sandbox does not run.
    """
    home = ContextHome(checkout, context)
    home.chosen()
    endpoints = daemon.running(home.project)
    if endpoints is None:
        msg = f"the sandbox of {context} is not running: kilo up --context {context} starts it"
        raise Unreachable(msg)
    typer.echo(f"Run pulumi in {home.project}.", err=True)
    return engine_variables(home, endpoints)


def down(checkout: Path, context: str) -> None:
    """Remove the stage from the context's cluster, and its data from this machine."""
    remove(ContextHome(checkout, context))
    typer.echo(f"Removed from {context}.", err=True)


def status(checkout: Path, context: str) -> list[ComponentStatus]:
    """The servers on this machine and the stage's pods.

    Raises:
        BadInput: no stage was brought up on the context.
        Unreachable: the cluster doesn't answer.
    """
    home = ContextHome(checkout, context)
    home.chosen()
    endpoints = daemon.running(home.project)
    found = servers(home.project, endpoints) if endpoints else []
    if endpoints is None:
        found = [ComponentStatus("daemon", "stopped", None, 0, "")]
    pods = Kubectl(context).json("get", "pods", f"--namespace={home.namespace}")["items"]
    return [*found, *(of_pod(pod) for pod in pods)]


def logs(checkout: Path, context: str, name: str, lines: int, *, wait: bool) -> None:
    """Print the logs of the pods, or of the servers on this machine, whose names begin with ``name``.

    Raises:
        BadInput: there are none of that name; says which there are.
    """
    home = ContextHome(checkout, context)
    home.chosen()
    kubectl = Kubectl(context)
    pods = kubectl.json("get", "pods", f"--namespace={home.namespace}")["items"]
    names = [str(pod["metadata"]["name"]) for pod in pods]
    asked = name.removeprefix(f"{home.namespace}/")
    chosen = [pod for pod in names if pod.startswith(asked)]
    files = {} if chosen else log_files(home.project, name)
    if not (chosen or files):
        msg = f"no log of '{name}' on {context}; there are logs of: {', '.join(sorted(names)) or 'none yet'}"
        raise BadInput(msg)
    for file in files.values():
        typer.echo(tail(file, lines))
    command = [f"--namespace={home.namespace}", "logs", "--all-containers", f"--tail={lines}"]
    running: list[subprocess.Popen[bytes]] = []
    for pod in chosen:
        prefixed = ["--prefix"] if len(chosen) > 1 else []
        argv = [*kubectl.words(), *command, *prefixed, *(["--follow"] if wait else []), pod]
        running.append(subprocess.Popen(argv))
        if not wait:
            running[-1].wait()
    # As many as pods: kubectl follows one name at a time.
    for process in running:
        process.wait()
