"""A Kafka that knows its users by password, certificate or token, each with the rights that the docs name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage]
    AclOperation,  # pyright: ignore[reportPrivateImportUsage]
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage]
    AdminClient,
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from kilo.bus.access import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    TOKEN_CA_VARIABLE,
    TOKEN_SCOPE_VARIABLE,
    TOKEN_URL_VARIABLE,
    USER_VARIABLE,
    Shown,
)
from kilo.bus.roles import BUS_ROLES, BusRole
from kilo.contract import StackOutputs
from sandbox.servers.kafka import KafkaGuard, KafkaServer
from tests.events import make_outputs
from tests.runtime.bus.token_endpoint import SCOPE, TokenEndpoint
from tests.runtime.traffic.certificates import Authority

DOCS = Path(__file__).parents[3] / "docs" / "outbox.md"

_RIGHTS = re.compile(r"^\| `([a-z]+)` \| (topic|group) \| `([a-z.-]+)` \| ([A-Za-z, ]+) \|$", re.MULTILINE)
_VARIABLES = (
    USER_VARIABLE,
    PASSWORD_VARIABLE,
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    TOKEN_URL_VARIABLE,
    TOKEN_SCOPE_VARIABLE,
    TOKEN_CA_VARIABLE,
)


def rights_of_docs(topic: str) -> list[AclBinding]:
    """What a Kafka lets each role do, as the docs say, where a stage's topic is called ``topic``."""
    return [
        AclBinding(
            ResourceType[kind.upper()],
            re.sub(r"\bevents\b", topic, name),
            ResourcePatternType.LITERAL,
            f"User:{role}",
            "*",
            AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for role, kind, name, operations in _RIGHTS.findall(DOCS.read_text(encoding="utf-8"))
        for operation in operations.split(", ")
    ]


@dataclass
class KafkaOfUsers:
    """A broker with a user for each role, and the files by which they are who they are."""

    server: KafkaServer
    directory: Path
    authority: Authority
    endpoint: TokenEndpoint
    """Where its users have their tokens."""
    _topics: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def stage(self, shown: Shown) -> GuardedKafka:
        """A stage of its own on it, whose processes may do what the docs say."""
        topic = f"events{next(self._topics)}"
        self.server.allow(rights_of_docs(topic))
        return GuardedKafka(self, shown, topic)


@dataclass(frozen=True)
class GuardedKafka:
    """One stage on it, whose processes all show the same."""

    kafka: KafkaOfUsers
    by: Shown
    topic: str

    @property
    def url(self) -> str:
        return self.kafka.server.url_by(self.by)

    @property
    def outputs(self) -> StackOutputs:
        return make_outputs(self.url, topic=self.topic)

    def shown(self, role: BusRole) -> dict[str, str]:
        """The environment of a process of ``role``."""
        environment = {CA_VARIABLE: str(self.kafka.ca_file)}
        if self.by == "certificate":
            files = {CERTIFICATE_VARIABLE: f"{role}.crt", KEY_VARIABLE: f"{role}.key"}
            return environment | {name: str(self.kafka.directory / file) for name, file in files.items()}
        environment |= {USER_VARIABLE: role, PASSWORD_VARIABLE: password_of(role)}
        if self.by == "password":
            return environment
        endpoint = self.kafka.endpoint
        return environment | {
            TOKEN_URL_VARIABLE: endpoint.url,
            TOKEN_SCOPE_VARIABLE: SCOPE,
            TOKEN_CA_VARIABLE: str(endpoint.ca_file),
        }

    def client_over(self, protocol: str) -> AdminClient:
        """One with a user's password, in whatever ``security.protocol``."""
        return AdminClient(
            {
                "bootstrap.servers": self.url.partition("://")[2],
                "security.protocol": protocol,
                "ssl.ca.location": str(self.kafka.ca_file),
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "worker",
                "sasl.password": password_of("worker"),
                "log_level": 0,
            }
        )

    def become(self, environment: pytest.MonkeyPatch, role: BusRole) -> None:
        """Make this process one of ``role``."""
        for name in _VARIABLES:
            environment.delenv(name, raising=False)
        for name, value in self.shown(role).items():
            environment.setenv(name, value)


def password_of(role: BusRole) -> str:
    return f"a-password-of-{role}"


def kafka_of_users(directory: Path) -> KafkaOfUsers:
    """A broker that is not started yet."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    certificate, key, _ = authority.sign("localhost")
    (directory / "broker.pem").write_bytes(key + certificate)
    (directory / "ca.pem").write_bytes(authority.pem)
    for role in BUS_ROLES:
        certificate, key, _ = authority.sign(called=role)
        (directory / f"{role}.crt").write_bytes(certificate)
        (directory / f"{role}.key").write_bytes(key)
    users: dict[str, str] = {role: password_of(role) for role in BUS_ROLES}
    endpoint = TokenEndpoint(directory, users)
    guard = KafkaGuard(users, directory / "broker.pem", directory / "ca.pem", endpoint.believed)
    return KafkaOfUsers(KafkaServer(directory / "kafka", guard=guard), directory, authority, endpoint)
