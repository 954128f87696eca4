"""The servers outside the cluster: what they are, and keeping them running.

They stand for what a stage's clouds provide: PostgreSQL, the AWS and Google Cloud APIs, two registries.
A server that ends is started again with a pause that grows; what it stores survives it.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kilo.testing.servers.ports import free_port

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class Server(Protocol):
    """What every server of :mod:`sandbox.servers` can do."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        ...

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def stop(self) -> None:
        """Stop it in order."""
        ...


@dataclass
class Component:
    """One server and how it has fared.

    Attributes:
        address: where it answers, without credentials.
        since: seconds since the epoch at which it became ready the last time, None before.
    """

    name: str
    server: Server
    address: str
    state: str = "starting"
    since: float | None = None
    restarts: int = 0


class Ports:
    """Free ports on 127.0.0.1, the same ones again after a restart as long as they are still free."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, int] = {}
        with suppress(OSError, ValueError):
            self._known = json.loads(file.read_bytes())

    def known(self, name: str) -> int | None:
        """The port that was chosen for ``name`` the last time."""
        return self._known.get(name)

    def of(self, name: str) -> int:
        """The port of ``name``."""
        port = self._known.get(name)
        if port is None or not _is_free(port):
            self._known[name] = port = free_port()
            write_atomically(self._file, self._known)
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Backing:
    """Starts the servers side by side and keeps them running until they are stopped."""

    def __init__(self, servers: Mapping[str, tuple[Server, str]]) -> None:
        self.components = [Component(name, server, address) for name, (server, address) in servers.items()]
        self._stopping = threading.Event()
        self._watchers = [
            threading.Thread(target=self._watch, args=(component,), name=component.name, daemon=True)
            for component in self.components
        ]

    def start(self) -> None:
        """Start all and wait until all are ready.

        Raises:
            Unreachable: one did not come up; the message has its last lines.
        """
        with ThreadPoolExecutor(len(self.components)) as pool:
            for started in [pool.submit(_start, component) for component in self.components]:
                started.result()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop all."""
        self._stopping.set()
        for watcher in self._watchers:
            if watcher.is_alive():
                watcher.join()
        with ThreadPoolExecutor(len(self.components)) as pool:
            list(pool.map(lambda component: component.server.stop(), self.components))

    def _watch(self, component: Component) -> None:
        pause = 1.0
        while not self._stopping.wait(_WATCH_SECONDS):
            if component.server.pid is not None:
                continue
            component.state, component.restarts = "restarting", component.restarts + 1
            logger.warning("%s ended; starting it again", component.name)
            try:
                _start(component)
                pause = 1.0
            except Exception as error:
                # Whatever it was, the next try may do; without one the server would stay away.
                logger.warning("%s: %s", component.name, error)
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _start(component: Component) -> None:
    component.server.start()
    component.state, component.since = "running", time.time()


def write_atomically(path: Path, value: object) -> None:
    """Write ``value`` as JSON, for its owner alone; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.touch(mode=0o600)
    beside.write_text(json.dumps(value, indent=2), encoding="utf-8")
    beside.replace(path)
