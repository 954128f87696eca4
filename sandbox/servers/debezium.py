"""Debezium Server, for what reads the write-ahead log beside the cluster: tests and measurements.

In the cluster it is a pod like any other; both run the distribution that the toolchain keeps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import httpx

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess
from sandbox.toolchain import path


class DebeziumServer(OneProcess):
    """A server with its configuration, log and offsets under ``directory``.

    Args:
        directory: made when missing.
        properties: the text of ``application.properties``.
        environment: what its ``${…}`` stand for.
        address: the loopback address of its health port.
        maximum_heap: as Java's ``-Xmx`` takes it.
        java_options: further ones.
    """

    def __init__(
        self,
        directory: Path,
        properties: str,
        environment: Mapping[str, str],
        address: str = "127.0.0.1",
        maximum_heap: str = "512m",
        *,
        java_options: Sequence[str] = (),
    ) -> None:
        self.port = free_port(address)
        self._address = address
        home = path("debezium")
        configuration = directory / "config"
        configuration.mkdir(parents=True, exist_ok=True)
        (configuration / "application.properties").write_text(properties, encoding="utf-8")
        runner = next(home.glob("debezium-server-dist-*-runner.jar"))
        self._process = ServerProcess(
            name="debezium",
            argv=[
                str(path("java")),
                f"-Xmx{maximum_heap}",
                "-XX:+UseSerialGC",
                *java_options,
                "--add-opens=java.base/java.lang=ALL-UNNAMED",
                "-cp",
                f"{runner}:{home}/config/lib:{home}/lib/*",
                "io.debezium.server.Main",
            ],
            env={
                **os.environ,
                **environment,
                "QUARKUS_HTTP_HOST": address,
                "QUARKUS_HTTP_PORT": str(self.port),
            },
            directory=directory,
            log_path=directory / "debezium.log",
            ready=self._ready,
        )

    @property
    def liveness_url(self) -> str:
        """Where it says whether it is alive."""
        return f"http://{self._address}:{self.port}/q/health/live"

    @property
    def running(self) -> bool:
        """Whether it is alive: it ends when the bus goes away."""
        return self._process.running

    def _ready(self) -> bool:
        try:
            answer = httpx.get(f"http://{self._address}:{self.port}/q/health/ready", timeout=2)
        except httpx.HTTPError:
            return False
        return answer.status_code == HTTPStatus.OK
