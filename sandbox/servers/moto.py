"""The AWS APIs of the sandbox: a moto server that loses nothing it acknowledged.

moto keeps everything in memory; here each change is journalled before it is answered and replayed at
the next start (see :mod:`sandbox.servers.moto_journal`), so that keys, their material, objects, locks,
secrets, repositories, queues and messages survive a kill. Services outside of
:data:`sandbox.servers.moto_app.SERVICES` answer too, and their changes are journalled, but nothing proves
that theirs come back alike.
"""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

from sandbox.servers.ports import free_port
from sandbox.servers.process import ServerProcess


class MotoServer:
    """A server on 127.0.0.1 with its state under ``directory``.

    Args:
        directory: made when missing.
        port: a free one when not given.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = ServerProcess(
            name="aws",
            argv=[
                sys.executable,
                "-P",
                "-m",
                "sandbox.servers.moto_app",
                str(directory / "data"),
                str(self.port),
            ],
            env={"MOTO_PORT": str(self.port), "PYTHONHASHSEED": "0"},
            directory=directory,
            log_path=directory / "log",
            ready=self._ready,
            # A long journal takes its time: some 500 changes a second.
            start_seconds=300,
        )

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start it and return when everything is replayed and it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._process.start()

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5) as response:  # noqa: S310
            return response.status == 200
