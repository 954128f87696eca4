"""A Kafka broker (KRaft, one node), for tests and measurements of the bus's second adapter."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess
from sandbox.toolchain import path

_CLUSTER = "kilokilokilokilokiloki"


class KafkaServer(OneProcess):
    """A broker on ``127.0.0.1`` with its log under ``directory``.

    Args:
        directory: made when missing.
        advertised_port: where clients are told to connect, when that is not the broker's own port.
    """

    def __init__(self, directory: Path, advertised_port: int | None = None) -> None:
        self.port = free_port()
        self._advertised_port = advertised_port or self.port
        self._directory = directory
        self._java = [str(path("java")), "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{path('kafka')}/*"]
        self._configuration = directory / "server.properties"
        self._process = ServerProcess(
            name="kafka",
            argv=[*self._java, "kafka.Kafka", str(self._configuration)],
            env=dict(os.environ),
            directory=directory,
            log_path=directory / "kafka.log",
            ready=self._ready,
        )

    @property
    def url(self) -> str:
        """The bus URL."""
        return f"kafka://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format the log the first time, start, and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / "log"
        if not self._configuration.exists():
            controller = free_port()
            self._configuration.write_text(
                f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
""",
                encoding="utf-8",
            )
            command = [*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c"]
            subprocess.run([*command, str(self._configuration)], check=True, capture_output=True)
        super().start()

    def _ready(self) -> bool:
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False
