"""A Kafka broker (KRaft, one node), for tests and measurements of the bus's second adapter."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess
from sandbox.toolchain import path

_CLUSTER = "kilokilokilokilokiloki"


@dataclass(frozen=True)
class KafkaGuard:
    """Users with their passwords, by SASL/SCRAM-SHA-512 over TLS."""

    users: Mapping[str, str]
    keystore: Path
    """Key and certificate in PEM."""
    host: str = "localhost"
    """The name that the certificate is of, which clients are told to connect to."""


class KafkaServer(OneProcess):
    """A broker on ``127.0.0.1`` with its log under ``directory``.

    Args:
        directory: made when missing.
        advertised_port: where clients are told to connect, when that is not the broker's own port.
        guard: users and TLS; without, all may do everything.
    """

    def __init__(
        self, directory: Path, advertised_port: int | None = None, guard: KafkaGuard | None = None
    ) -> None:
        self.port = free_port()
        self._advertised_port = advertised_port or self.port
        self._directory = directory
        self._guard = guard
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
        return f"kafka://{self._guard.host if self._guard else '127.0.0.1'}:{self.port}"

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
{self._listeners(controller)}\
log.dirs={log}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
""",
                encoding="utf-8",
            )
            command = [*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c"]
            users = self._guard.users if self._guard else {}
            scram = [
                part
                for user, password in users.items()
                for part in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
            ]
            subprocess.run([*command, str(self._configuration), *scram], check=True, capture_output=True)
        super().start()

    def _listeners(self, controller: int) -> str:
        """Where it listens. What it guards it tells itself plainly, on a port that nobody is told of."""
        if self._guard is None:
            return f"""\
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""
        inner = free_port()
        return f"""\
listeners=OUTSIDE://127.0.0.1:{self.port},INSIDE://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OUTSIDE://{self._guard.host}:{self.port},INSIDE://127.0.0.1:{inner}
listener.security.protocol.map=OUTSIDE:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
listener.name.outside.ssl.keystore.type=PEM
listener.name.outside.ssl.keystore.location={self._guard.keystore}
listener.name.outside.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.outside.scram-sha-512.sasl.jaas.config=\\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""

    def _ready(self) -> bool:
        if self._guard:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False
