"""Clears what a killed engine leaves behind, so that the next command needs no hand.

A kill leaves two things in the state backend: the stack's lock, and a note of each operation that was
under way. A lock is taken away only when the process that owned it is gone. A creation under way has
either happened or not: where it has, and the resource can be told by its name, it is put into the state
and read by the engine; the rest is cleared and done again. A key, which AWS itself names, can't be told
and stays behind unused.

Run by the ``pulumi`` of ``.kilo/bin`` whenever it finds a lock before it starts.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from kilo.errors import KiloError, Unreachable
from sandbox.engine.command import with_configuration
from sandbox.engine.environment import Layout
from sandbox.providers.base import Provider

PULUMI_VARIABLE = "KILO_PULUMI"
# A provider of the killed engine ends within a second of it and may finish a call until then.
_SETTLE_SECONDS = 1.5
_CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class Lock:
    """A lock of the file backend."""

    path: Path
    pid: int
    host: str
    taken_at: float

    @property
    def stack(self) -> str:
        """The stack's name; the path is ``…/locks/organization/PROJECT/STACK/ID.json``."""
        return self.path.parent.name

    def is_stale(self) -> bool:
        """Whether its owner ran on this machine and is gone, its process id perhaps given to another."""
        if self.host != socket.gethostname():
            return False
        try:
            return psutil.Process(self.pid).create_time() > self.taken_at + _CLOCK_SECONDS
        except psutil.NoSuchProcess:
            return True


def recover(project: Path, pulumi: Path) -> list[str]:
    """Clear what killed engines left behind; answers with the stacks that were mended.

    Args:
        project: the folder of Pulumi.yaml.
        pulumi: the engine's own executable, not the one of ``.kilo/bin``.

    Raises:
        Unreachable: the engine could not finish what was under way.
    """
    layout = Layout(project)
    with (layout.home / "recovery.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        stale = [lock for lock in _locks(layout) if lock.is_stale()]
        stacks = sorted({lock.stack for lock in stale})
        for lock in stale:
            lock.path.unlink(missing_ok=True)
        if stacks:
            _remove_torn_attributes(layout)
        for stack in stacks:
            _finish_creations(project, pulumi, stack)
    return stacks


def _locks(layout: Layout) -> Iterator[Lock]:
    for path in (layout.state / ".pulumi" / "locks").rglob("*.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            taken = datetime.fromisoformat(content["timestamp"]).timestamp()
            yield Lock(path, content["pid"], content["hostname"], taken)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError):
            # Cut off by a kill while it was written: nobody holds it.
            yield Lock(path, 0, socket.gethostname(), 0.0)


def _remove_torn_attributes(layout: Layout) -> None:
    """Remove files of attributes that a kill has cut off; without one a state is read by itself.

    The file backend replaces a state in one step, but writes the attributes beside it in place. With half of
    them it reads no state at all, by no command ("failed to load checkpoint: EOF").
    """
    for path in (layout.state / ".pulumi").rglob("*.attrs"):
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except ValueError:
            path.unlink(missing_ok=True)


def _finish_creations(project: Path, pulumi: Path, stack: str) -> None:
    exported = json.loads(_run(project, [str(pulumi), "stack", "export", "--stack", stack]))
    deployment = exported["deployment"]
    pending = deployment.get("pending_operations") or []
    created = [operation["resource"] for operation in pending if operation["type"] == "creating"]
    if not created:
        return
    time.sleep(_SETTLE_SECONDS)
    deployment["pending_operations"] = [one for one in pending if one["type"] != "creating"]
    resources = deployment.setdefault("resources", [])
    adopted: list[str] = []
    for resource in created:
        if found := _find(resource, resources):
            # Its outputs are what the engine reads of it below, and encrypts where they are secret.
            resources.append({**resource, "id": found, "outputs": resource.get("inputs", {})})
            adopted.append(resource["urn"])
    _run(project, [str(pulumi), "stack", "import", "--stack", stack], given=json.dumps(exported))
    if adopted:
        refresh = ["refresh", "--stack", stack, "--yes", "--skip-preview", "--non-interactive"]
        targets = [word for urn in adopted for word in ("--target", urn)]
        _run(project, [str(pulumi), *with_configuration(project, refresh), *targets])


def _find(resource: dict[str, Any], resources: list[dict[str, Any]]) -> str | None:
    if not (provider := _provider(resource["type"])):
        return None
    provider_urn = str(resource.get("provider", "")).rpartition("::")[0]
    for other in resources:
        if other["urn"] == provider_urn:
            provider.configure(other.get("inputs") or {})
    try:
        return provider.find_type(resource["type"]).find(resource.get("inputs") or {})
    except Exception as error:  # whatever a client raises
        sys.stderr.write(f"{resource['urn']}: can't tell whether it was created ({error})\n")
        return None


def _provider(token: str) -> Provider | None:
    # Imported late: most recoveries have nothing to find.
    match token.split(":", 1)[0]:
        case "aws":
            from sandbox.providers.aws import provider as aws  # noqa: PLC0415

            return aws.make()
        case "gcp":
            from sandbox.providers.gcp import provider as gcp  # noqa: PLC0415

            return gcp.make()
        case _:
            return None


def _run(project: Path, command: list[str], given: str = "") -> str:
    done = subprocess.run(command, cwd=project, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        msg = (
            f"`pulumi {' '.join(command[1:3])}` failed while mending an interrupted update: {' '.join(said)}"
        )
        raise Unreachable(msg)
    return done.stdout


def main() -> int:
    """Recover the project that the first argument names, and say what was mended."""
    try:
        for stack in recover(Path(sys.argv[1]), Path(os.environ[PULUMI_VARIABLE])):
            sys.stderr.write(f"stack {stack}: an update was interrupted; it is mended\n")
    except KiloError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
