"""The cluster as the daemon runs it: started, answering over HTTP, stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from sandbox import toolchain
from sandbox.backing import Ports
from sandbox.cluster.client import forget_token, new_token
from sandbox.cluster.cluster import Cluster
from sandbox.cluster.http import KubernetesApi
from sandbox.cluster.node.images import Images
from sandbox.cluster.node.node import NodeSettings


@dataclass(frozen=True)
class ServerUrls:
    """The servers beside the cluster, by URL, and programs that pods find on their PATH."""

    aws: str
    gcs: str
    primary_registry: str
    secondary_registry: str
    postgres_programs: Path


class ClusterService:
    """A project's cluster.

    Args:
        home: the project's ``.kilo``.
        servers: what pods are told of the world.
        images: local programs for images.
    """

    def __init__(self, home: Path, servers: ServerUrls, images: Images | None = None) -> None:
        settings = NodeSettings(
            home=home,
            images=images or Images(home=home),
            injected=cloud_variables(servers, home / "registries.conf"),
        )
        self._ports = Ports(home / "cluster-ports.json")
        self.cluster = Cluster(settings, toolchain.path("crds"))
        self._tasks: list[asyncio.Task[None]] = []
        self._url = ""

    async def start(self) -> str:
        """Start it and answer with its URL."""
        port = self._ports.of("api")
        self._url = f"http://127.0.0.1:{port}"
        api = KubernetesApi(self.cluster.resources, self.cluster.node.logs, new_token(self._url))
        listener = socket.create_server(("127.0.0.1", port))
        self._server = _Server(
            uvicorn.Config(api.application, log_level="warning", access_log=False, lifespan="off")
        )
        self._tasks = [
            asyncio.create_task(self.cluster.run()),
            asyncio.create_task(self._server.serve([listener])),
        ]
        return self._url

    async def stop(self) -> None:
        """Stop every pod's processes; the pods come back at the next start."""
        await self.cluster.stop()
        self._server.should_exit = True
        self._tasks[0].cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        forget_token(self._url)


class _Server(uvicorn.Server):
    """Leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def cloud_variables(servers: ServerUrls, registries: Path) -> Mapping[str, str]:
    """What leads the clouds' client libraries to the sandbox's servers; any credentials are taken there.

    ``registries`` is the file that says where registries are.
    """
    return {
        "AWS_ENDPOINT_URL": servers.aws,
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_EC2_METADATA_DISABLED": "true",
        "STORAGE_EMULATOR_HOST": servers.gcs,
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }
