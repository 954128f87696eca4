"""The sandbox's two OCI registries: the primary stands for ECR, the secondary for Artifact Registry.

Both are CNCF Distribution with files on disk. It has no referrers API, so referrers are found by their
fallback tag there (OCI distribution specification 1.1, "Referrers Tag Schema"). The primary tells of each
push; :mod:`sandbox.servers.push_events` makes of it the event that ECR would put on EventBridge.
Neither holds tags immutable: that is the cloud registries' own doing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox import toolchain
from sandbox.servers.http_server import HttpServer
from sandbox.servers.push_events import PATH


class _Registry(HttpServer):
    health = "/v2/"

    def settings(self) -> dict[str, Any]:
        """Distribution's configuration (https://distribution.github.io/distribution/about/configuration)."""
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        return [str(toolchain.path("docker-registry")), "serve", str(self._configuration)]

    def environment(self) -> Mapping[str, str]:
        """Variables over this process's own."""
        return {"OTEL_TRACES_EXPORTER": "none"}

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._configuration.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML too.
        beside = self._configuration.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(self.settings(), indent=1))
        beside.replace(self._configuration)
        super().start()

    @property
    def _configuration(self) -> Path:
        return self.directory / "config.json"


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
        super().__init__(directory, port)
        self._events = f"{aws}{PATH}/{region}"

    def settings(self) -> dict[str, Any]:
        """Distribution's configuration, with where pushes are told of."""
        endpoint = {
            "name": "events",
            "url": self._events,
            "timeout": "5s",
            "threshold": 5,
            "backoff": "1s",
            "ignore": {"actions": ["pull", "mount", "delete"]},
        }
        return super().settings() | {"notifications": {"endpoints": [endpoint]}}


class SecondaryRegistry(_Registry):
    """The secondary registry."""

    name = "registry-secondary"
