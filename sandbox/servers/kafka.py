"""A Kafka broker (KRaft, one node), for tests and measurements of the bus's second adapter."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage]
    AdminClient,
)

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess
from sandbox.toolchain import path

_CLUSTER = "kilokilokilokilokiloki"
_SCRAM = """\
listener.name.outside.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.outside.scram-sha-512.sasl.jaas.config=\\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
_MUTUAL_TLS = """\
listener.name.outside.ssl.client.auth=required
listener.name.outside.ssl.truststore.type=PEM
listener.name.outside.ssl.truststore.location={}
listener.name.outside.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
"""
_RIGHTS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""Whoever comes by the inner listener is anonymous."""


@dataclass(frozen=True)
class KafkaGuard:
    """Users with their passwords, by SASL/SCRAM-SHA-512 over TLS, or with certificates.

    Who is let in may do what :attr:`rights` says, and nothing else.
    """

    users: Mapping[str, str]
    keystore: Path
    """Key and certificate in PEM."""
    host: str = "localhost"
    """The name that the certificate is of, which clients are told to connect to."""
    believed: Path | None = None
    """In PEM, the authorities of clients' certificates, which are asked for in place of passwords. A user is
    called by the common name of its own."""
    rights: Sequence[AclBinding] | None = None
    """Without them everybody may do everything."""


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
        self.port, self._inner = free_port(), free_port()
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
# On a busy machine it is late with its heartbeats to itself, and would take nothing until the next. One that
# was killed comes back only once its session is over, which is to be well before it gives up.
broker.session.timeout.ms=20000
initial.broker.registration.timeout.ms=120000
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
        if self._guard and self._guard.rights:
            admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self._inner}", "log_level": 0})
            for made in admin.create_acls(list(self._guard.rights)).values():
                made.result(30)

    def _listeners(self, controller: int) -> str:
        """Where it listens. What it guards it tells itself plainly, on a port that nobody is told of."""
        if self._guard is None:
            return f"""\
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""
        guard, protocol = self._guard, "SSL" if self._guard.believed else "SASL_SSL"
        return f"""\
listeners=OUTSIDE://127.0.0.1:{self.port},INSIDE://127.0.0.1:{self._inner},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OUTSIDE://{guard.host}:{self.port},INSIDE://127.0.0.1:{self._inner}
listener.security.protocol.map=OUTSIDE:{protocol},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
listener.name.outside.ssl.keystore.type=PEM
listener.name.outside.ssl.keystore.location={guard.keystore}
{_MUTUAL_TLS.format(guard.believed) if guard.believed else _SCRAM}\
{_RIGHTS if guard.rights else ""}\
"""

    def _ready(self) -> bool:
        port = self._inner if self._guard else self.port
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False
