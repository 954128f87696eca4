"""A Kafka broker (KRaft, one node), for tests and measurements of the bus's second adapter."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage]
    AclBindingFilter,  # pyright: ignore[reportPrivateImportUsage]
    AclOperation,  # pyright: ignore[reportPrivateImportUsage]
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage]
    AdminClient,
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from kilo.bus.access import Shown
from kilo.cdc.properties import ALLOWED_URLS
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import OneProcess, ServerProcess
from sandbox.toolchain import path

_ANSWER_SECONDS = 30
_ANY: Any = None
_ANY_RIGHT = AclBindingFilter(
    ResourceType.ANY, _ANY, ResourcePatternType.ANY, _ANY, _ANY, AclOperation.ANY, AclPermissionType.ANY
)
_CLUSTER = "kilokilokilokilokiloki"
_PROTOCOLS = {"password": "SASL_SSL", "certificate": "SSL", "token": "SASL_SSL"}
_TLS = """\
listener.name.{0}.ssl.keystore.type=PEM
listener.name.{0}.ssl.keystore.location={1}
"""
_SCRAM = """\
listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.password.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
_MUTUAL_TLS = """\
listener.name.certificate.ssl.client.auth=required
listener.name.certificate.ssl.truststore.type=PEM
listener.name.certificate.ssl.truststore.location={}
listener.name.certificate.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
"""
_TOKENS = """\
listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.token.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.token.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={url}
listener.name.token.oauthbearer.sasl.oauthbearer.expected.issuer={issuer}
listener.name.token.oauthbearer.sasl.oauthbearer.expected.audience={audience}
listener.name.token.oauthbearer.sasl.oauthbearer.clock.skew.seconds=1
listener.name.token.oauthbearer.connections.max.reauth.ms=3600000
"""
"""A connection ends with its token, unless another was shown on it."""
_RIGHTS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""Whoever comes by the plain listener is anonymous."""


@dataclass(frozen=True)
class TokenIssuer:
    """Whose tokens a broker believes."""

    jwks: Path
    """The public keys (RFC 7517)."""
    issuer: str
    audience: str


@dataclass(frozen=True)
class KafkaGuard:
    """Users with their passwords, by SASL/SCRAM-SHA-512 over TLS, and at other ports by certificate or token.

    Who is let in there may do what :meth:`KafkaServer.allow` says, and nothing else.
    """

    users: Mapping[str, str]
    keystore: Path
    """Key and certificate in PEM."""
    believed: Path
    """In PEM, the authorities of clients' certificates. A user is called by the common name of its own."""
    tokens: TokenIssuer
    """A user is called by the subject of its token."""
    host: str = "localhost"
    """The name that the certificate is of, which clients are told to connect to."""


class KafkaServer(OneProcess):
    """A broker on ``127.0.0.1`` with its log under ``directory``.

    Args:
        directory: made when missing.
        advertised_port: where clients are told to connect, when that is not the broker's own port.
        guard: ports beside the plain one, for users; who comes by the plain one may do everything.
    """

    def __init__(
        self, directory: Path, advertised_port: int | None = None, guard: KafkaGuard | None = None
    ) -> None:
        self.port = free_port()
        self._guarded = {shown: free_port() for shown in _PROTOCOLS} if guard else {}
        self._advertised_port = advertised_port or self.port
        self._directory = directory
        self._guard = guard
        self._host = guard.host if guard else "127.0.0.1"
        self._java = [str(path("java")), "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{path('kafka')}/*"]
        if guard:
            # Kafka reads keys from nowhere that it was not told of, by this alone.
            self._java.insert(1, f"-D{ALLOWED_URLS}={guard.tokens.jwks.as_uri()}")
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
        """The bus URL of the plain listener."""
        return f"kafka://127.0.0.1:{self.port}"

    def url_by(self, shown: Shown) -> str:
        """The bus URL of the listener whose users show this."""
        return f"kafka://{self._host}:{self._guarded[shown]}"

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

    def allow(self, rights: Sequence[AclBinding]) -> None:
        """Give users rights, and wait until the broker goes by them, which it hears of after the controller's
        answer.

        Raises:
            TimeoutError: it still goes without them after 30 s.
        """
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        for made in admin.create_acls(list(rights)).values():
            made.result(_ANSWER_SECONDS)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not set(rights) <= set(admin.describe_acls(_ANY_RIGHT).result(_ANSWER_SECONDS)):
            if time.monotonic() > deadline:
                msg = f"after {_ANSWER_SECONDS} s the broker goes without rights that the controller has"
                raise TimeoutError(msg)
            time.sleep(0.05)

    def _listeners(self, controller: int) -> str:
        """Where it listens."""
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        own = {"PLAINTEXT": f"127.0.0.1:{self.port}", "CONTROLLER": f"127.0.0.1:{controller}"}
        told = {"PLAINTEXT": f"127.0.0.1:{self._advertised_port}"}
        if self._guard:
            protocols |= {shown.upper(): protocol for shown, protocol in _PROTOCOLS.items()}
            own |= {shown.upper(): f"127.0.0.1:{port}" for shown, port in self._guarded.items()}
            told |= {shown.upper(): f"{self._host}:{port}" for shown, port in self._guarded.items()}
        return f"""\
listeners={_listed(own, "://")}
advertised.listeners={_listed(told, "://")}
listener.security.protocol.map={_listed(protocols, ":")}
inter.broker.listener.name=PLAINTEXT
{self._guards()}\
"""

    def _guards(self) -> str:
        if self._guard is None:
            return ""
        tokens = self._guard.tokens
        return f"""\
{"".join(_TLS.format(name, self._guard.keystore) for name in self._guarded)}\
{_SCRAM}\
{_MUTUAL_TLS.format(self._guard.believed)}\
{_TOKENS.format(url=tokens.jwks.as_uri(), issuer=tokens.issuer, audience=tokens.audience)}\
{_RIGHTS}\
"""

    def _ready(self) -> bool:
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False


def _listed(by_name: Mapping[str, str], between: str) -> str:
    return ",".join(f"{name}{between}{value}" for name, value in by_name.items())
