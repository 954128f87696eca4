"""Logs of containers: one file a start, the last few kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from kilo.testing.servers.process import tail
from sandbox.cluster.errors import bad_request
from sandbox.cluster.objects import Object

_KEPT_STARTS = 3


class LogReader:
    """The logs under a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, pod: Object, container: str, start: int) -> Path:
        """The log of a container's start, counted from 0; older ones than the last few are removed."""
        folder = self._folder(pod)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{container}.{start - _KEPT_STARTS}.log").unlink(missing_ok=True)
        return folder / f"{container}.{start}.log"

    def latest(self, pod: Object, container: str, *, previous: bool = False) -> Path | None:
        """The log of the latest start, or of the one before it."""
        found = sorted(
            self._folder(pod).glob(f"{container}.*.log"), key=lambda path: int(path.suffixes[-2][1:])
        )
        wanted = found[:-1] if previous else found
        return wanted[-1] if wanted else None

    def read(self, pod: Object, *, container: str | None, lines: int | None, previous: bool) -> str:
        """The last lines of a container's log, all of them without ``lines``.

        Raises:
            ApiError: no such container, or one of several must be named.
        """
        spec = pod["spec"]
        names = [item["name"] for item in [*spec["containers"], *(spec.get("initContainers") or ())]]
        if container is None and len(spec["containers"]) > 1:
            choices = ", ".join(names)
            msg = f"a container name must be specified for pod {pod['metadata']['name']}: {choices}"
            raise bad_request(msg)
        chosen = container or names[0]
        if chosen not in names:
            msg = f"container {chosen} is not valid for pod {pod['metadata']['name']}"
            raise bad_request(msg)
        path = self.latest(pod, chosen, previous=previous)
        if path is None:
            return ""
        return f"{tail(path, lines)}\n" if lines else path.read_text(encoding="utf-8", errors="replace")

    def remove(self, pod: Object) -> None:
        """Remove all logs of a pod that is gone."""
        shutil.rmtree(self._folder(pod), ignore_errors=True)

    def all(self) -> list[Path]:
        """Every log there is."""
        return list(self._directory.glob("*/*/*.log"))

    def _folder(self, pod: Object) -> Path:
        return self._directory / pod["metadata"]["namespace"] / pod["metadata"]["name"]
