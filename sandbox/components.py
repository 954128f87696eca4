"""What runs on this machine for the dev stage, and where its logs are: servers, pods and services."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from kilo.errors import Unreachable
from sandbox.cluster.client import connect
from sandbox.daemon import Endpoints, Home

_FOLLOW_SECONDS = 0.25


@dataclass(frozen=True)
class ComponentStatus:
    """One line of ``kilo status``.

    Attributes:
        since: seconds since the epoch, None for what has not started.
    """

    name: str
    state: str
    since: float | None
    restarts: int
    address: str

    @property
    def healthy(self) -> bool:
        """Whether it runs, or has done what it was there for."""
        return self.state in ("running", "ready", "completed")

    @property
    def settled(self) -> bool:
        """Whether it is healthy, or failed for good, as a Job's pod does: waiting changes neither."""
        return self.healthy or self.state == "failed"

    def age(self) -> str:
        """How long it has been running, in words as kubectl has them."""
        if self.since is None:
            return "-"
        seconds = int(time.time() - self.since)
        for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
            if seconds >= 2 * length:
                return f"{seconds // length}{unit}"
        return f"{seconds}s"

    def as_json(self) -> dict[str, object]:
        """The line as JSON."""
        return asdict(self)


def components(project: Path, endpoints: Endpoints) -> list[ComponentStatus]:
    """Every server and every pod of the project's running sandbox.

    Raises:
        Unreachable: the daemon does not answer.
    """
    try:
        with connect(endpoints.cluster) as client:
            answer = client.get("/api/v1/pods").raise_for_status().json()
    except httpx.HTTPError as error:
        msg = (
            f"the sandbox's cluster at {endpoints.cluster} does not answer ({error}); see `kilo logs daemon`"
        )
        raise Unreachable(msg) from error
    return [*servers(project, endpoints), *(of_pod(pod) for pod in answer["items"])]


def servers(project: Path, endpoints: Endpoints) -> list[ComponentStatus]:
    """The daemon and the servers outside the cluster."""
    home = Home(project.resolve() / ".kilo")
    found = [ComponentStatus("daemon", "running", home.lock.stat().st_mtime, 0, endpoints.cluster)]
    with suppress(OSError, ValueError):
        found += [ComponentStatus(**component) for component in json.loads(home.status.read_bytes())]
    return found


def of_pod(pod: dict[str, Any]) -> ComponentStatus:
    """A pod, as a cluster's API shows it."""
    status = pod.get("status") or {}
    containers: list[dict[str, Any]] = status.get("containerStatuses") or []
    ports = [
        str(port["containerPort"]) for item in pod["spec"]["containers"] for port in item.get("ports") or ()
    ]
    address = f"{status.get('podIP', '')}:{','.join(ports)}" if ports else str(status.get("podIP", ""))
    started = status.get("startTime")
    return ComponentStatus(
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
        _state(status, containers),
        datetime.fromisoformat(started).timestamp() if started else None,
        sum(int(container.get("restartCount", 0)) for container in containers),
        address,
    )


def _state(status: dict[str, Any], containers: Sequence[dict[str, Any]]) -> str:
    if status.get("phase") == "Succeeded":
        return "completed"
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            return str(waiting.get("reason", "waiting"))
    if status.get("phase") == "Running":
        return (
            "ready" if containers and all(container.get("ready") for container in containers) else "not ready"
        )
    return str(status.get("phase", "Pending")).lower()


def log_files(project: Path, name: str) -> dict[str, Path]:
    """The logs whose component is named ``name``, a pod with or without its namespace, or begins with it."""
    home = project.resolve() / ".kilo"
    every: dict[str, Path] = {path.stem: path for path in sorted((home / "logs").glob("*.log"))}
    for path in sorted(home.glob("*/*.log")):
        if path.parent.name != "logs":
            every[path.stem if path.stem == path.parent.name else path.parent.name] = path
    for path in sorted((home / "logs" / "pods").glob("*/*/*.log")):
        every[f"{path.parent.name}/{path.stem}"] = path
    pod = name.rpartition("/")[2] if (home / "logs" / "pods" / name).is_dir() else name
    exact = {
        component: path
        for component, path in every.items()
        if pod in (component, component.partition("/")[0])
    }
    return exact or {component: path for component, path in every.items() if component.startswith(name)}


def follow(paths: Sequence[Path]) -> Iterator[str]:
    """New lines of the files as they come, without end."""
    offsets = {path: path.stat().st_size for path in paths}
    while True:
        for path, offset in offsets.items():
            with path.open(encoding="utf-8", errors="replace") as file:
                # A log that was emptied when it grew too long starts again.
                file.seek(offset if offset <= path.stat().st_size else 0)
                yield from file
                offsets[path] = file.tell()
        time.sleep(_FOLLOW_SECONDS)
