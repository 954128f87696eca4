"""Envoy's rate limit service with its store, as a stage deploys both."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from kilo.traffic.limit_service import (
    CONFIG_DIRECTORY,
    METRICS_DIRECTORY,
    render_config,
    render_mapping,
    service_environment,
    store_arguments,
)
from kilo.traffic.limits import DOMAIN
from sandbox import toolchain
from sandbox.toolchain import valkey
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, free_port


class RateLimits:
    """The service, which may be stopped, frozen and started again at the same port."""

    def __init__(self, directory: Path, domain: str = DOMAIN) -> None:
        self.port, self._store_port = free_port(), free_port()
        self._directory = directory
        self._files = {CONFIG_DIRECTORY: render_config(domain), METRICS_DIRECTORY: render_mapping()}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, and wait until the service is healthy."""
        home, ports = toolchain.path("valkey"), {"PORT": free_port(), "METRICS": free_port()}
        with (self._directory / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [home / valkey.PROGRAMS / "valkey-server", *store_arguments(ADDRESS, self._store_port)],
                    env={"LD_LIBRARY_PATH": valkey.libraries(home)},
                    cwd=self._directory,
                    stdout=log,
                    stderr=log,
                )
            )
            until(self._store_listens, "the store listens")
            self._processes.append(
                subprocess.Popen(
                    [toolchain.path("ratelimit")],
                    env={**os.environ, **self._environment(ports)},
                    stdout=log,
                    stderr=log,
                )
            )
        self.metrics_url = f"http://{ADDRESS}:{ports['METRICS']}/metrics"

        def healthy() -> bool:
            try:
                return httpx.get(f"http://{ADDRESS}:{ports['PORT']}/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        until(healthy, f"the rate limit service is healthy; its log is in {self._directory}")

    def freeze(self) -> None:
        """The service hangs: its connections stay open, and nothing answers."""
        self._processes[1].send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """Kill both."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def _environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """The deployed one, at ports and directories of this machine."""
        found = service_environment(ADDRESS, f"{ADDRESS}:{self._store_port}")
        for mount, files in self._files.items():
            local = self._directory / Path(mount).name
            local.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (local / name).write_text(content)
            found = {name: value.replace(mount, str(local)) for name, value in found.items()}
        return {
            **found,
            "PORT": str(ports["PORT"]),
            "GRPC_PORT": str(self.port),
            "DEBUG_PORT": str(free_port()),
            "PROMETHEUS_ADDR": f"{ADDRESS}:{ports['METRICS']}",
        }

    def _store_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, self._store_port)) == 0


@contextmanager
def rate_limits(directory: Path, domain: str = DOMAIN) -> Generator[RateLimits]:
    """The service for as long as the block lasts."""
    directory.mkdir(parents=True, exist_ok=True)
    service = RateLimits(directory, domain)
    try:
        service.start()
        yield service
    finally:
        service.stop()
