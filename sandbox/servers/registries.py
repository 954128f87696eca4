"""The sandbox's two OCI registries: the primary stands for ECR, the secondary for Artifact Registry.

Both are CNCF Distribution with files on disk. It has no referrers API, so referrers are found by their
fallback tag there (OCI distribution specification 1.1, "Referrers Tag Schema"). The primary tells of each
push; :mod:`sandbox.servers.push_events` makes of it the event that ECR would put on EventBridge.
Neither holds tags immutable: that is the cloud registries' own doing.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from sandbox import toolchain
from sandbox.servers.ports import free_port
from sandbox.servers.process import ServerProcess
from sandbox.servers.push_events import PATH


class _Registry:
    name: str

    def __init__(self, directory: Path, port: int | None, notifications: dict[str, Any]) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._configuration = directory / "config.json"
        self._settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(directory / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": f"127.0.0.1:{self.port}"},
            **notifications,
        }
        self._process = ServerProcess(
            name=self.name,
            argv=[str(toolchain.path("docker-registry")), "serve", str(self._configuration)],
            env={"OTEL_TRACES_EXPORTER": "none"},
            directory=directory,
            log_path=directory / "log",
            ready=self._ready,
        )

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._configuration.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML too.
        beside = self._configuration.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(self._settings, indent=1))
        beside.replace(self._configuration)
        self._process.start()

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/v2/", timeout=5) as response:  # noqa: S310
            return response.status == 200


class PrimaryRegistry(_Registry):
    """The primary registry.

    Args:
        directory: made when missing.
        port: a free one when not given.
        aws: the URL of the moto server that is told of pushes.
        region: of the event bus on which they appear.
    """

    name = "registry-primary"

    def __init__(
        self, directory: Path, port: int | None = None, *, aws: str, region: str = "us-east-1"
    ) -> None:
        endpoint = {
            "name": "events",
            "url": f"{aws}{PATH}/{region}",
            "timeout": "5s",
            "threshold": 5,
            "backoff": "1s",
            "ignore": {"actions": ["pull", "mount", "delete"]},
        }
        super().__init__(directory, port, {"notifications": {"endpoints": [endpoint]}})


class SecondaryRegistry(_Registry):
    """The secondary registry.

    Args:
        directory: made when missing.
        port: a free one when not given.
    """

    name = "registry-secondary"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        super().__init__(directory, port, {})
