"""A server of the sandbox that answers HTTP on 127.0.0.1."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess


class HttpServer(OneProcess):
    """One process with its state under ``directory``; a kind of server says its name, health and command.

    Args:
        directory: made when missing.
        port: a free one when not given.
    """

    name: ClassVar[str]
    """What tables and errors call it."""
    health: ClassVar[str]
    """The path that answers 200 once it is ready."""
    start_seconds: ClassVar[float] = 300
    """How long it may take until then."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = ServerProcess(
            name=self.name,
            argv=self.command(),
            env=self.environment(),
            directory=directory,
            log_path=directory / "log",
            ready=self._ready,
            start_seconds=self.start_seconds,
        )

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables over this process's own."""
        return {}

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}{self.health}", timeout=5) as response:  # noqa: S310
            return response.status == 200
