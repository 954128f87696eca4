"""Envoy's rate limit service with its Redis, as a stage may name one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from kilo.traffic.limits import DOMAIN
from sandbox import toolchain
from sandbox.toolchain import debian
from sandbox.toolchain.cache import install
from sandbox.toolchain.progress import Progress
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, free_port


def _redis() -> tuple[Path, str]:
    """Redis, and where its libraries are, which its package leaves to others."""
    recipes = [
        debian.package(name, summary=f"{name} from its Debian package", disk_bytes=20_000_000)
        for name in ("redis-tools", "libjemalloc2", "liblzf1")
    ]
    with Progress() as progress:
        for recipe in recipes:
            if not recipe.directory.is_dir():
                with progress.step(recipe.name, recipe.summary) as step:
                    install(recipe, step)
    libraries = {str(path.parent) for recipe in recipes for path in recipe.directory.rglob("*.so*")}
    return recipes[0].directory / "usr/bin/redis-check-rdb", ":".join(sorted(libraries))


class RateLimits:
    """The service, which may be stopped, frozen and started again at the same port."""

    def __init__(self, directory: Path, domain: str = DOMAIN) -> None:
        self.port, self._store_port = free_port(), free_port()
        self._directory = directory
        config = directory / "config"
        config.mkdir(parents=True)
        (config / "kilo.yaml").write_text(f"domain: {domain}\n")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, and wait until the service is healthy."""
        redis, libraries = _redis()
        store = ["redis-server", "--bind", ADDRESS, "--port", str(self._store_port), "--save", ""]
        with (self._directory / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    store,
                    executable=redis,
                    env={"LD_LIBRARY_PATH": libraries},
                    cwd=self._directory,
                    stdout=log,
                    stderr=log,
                )
            )
            until(self._store_listens, "Redis listens")
            probe = free_port()
            environment = {
                "RUNTIME_ROOT": str(self._directory),
                "RUNTIME_WATCH_ROOT": "false",
                "BACKEND_TYPE": "redis",
                "REDIS_SOCKET_TYPE": "tcp",
                "REDIS_URL": f"{ADDRESS}:{self._store_port}",
                "RESPONSE_DYNAMIC_METADATA": "true",
                "USE_STATSD": "false",
                "LOG_LEVEL": "warn",
                "HOST": ADDRESS,
                "PORT": str(probe),
                "GRPC_HOST": ADDRESS,
                "GRPC_PORT": str(self.port),
                "DEBUG_HOST": ADDRESS,
                "DEBUG_PORT": str(free_port()),
            }
            self._processes.append(
                subprocess.Popen(
                    [toolchain.path("ratelimit")], env={**os.environ, **environment}, stdout=log, stderr=log
                )
            )

        def healthy() -> bool:
            try:
                return httpx.get(f"http://{ADDRESS}:{probe}/healthcheck").status_code == 200
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

    def _store_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, self._store_port)) == 0


@contextmanager
def rate_limits(directory: Path, domain: str = DOMAIN) -> Generator[RateLimits]:
    """The service for as long as the block lasts."""
    service = RateLimits(directory, domain)
    try:
        service.start()
        yield service
    finally:
        service.stop()
