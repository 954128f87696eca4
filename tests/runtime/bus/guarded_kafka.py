"""A Kafka that knows its users by password or certificate, each with the rights that the docs name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage]
    AclOperation,  # pyright: ignore[reportPrivateImportUsage]
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage]
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from kilo.bus.access import CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.roles import BUS_ROLES, BusRole
from sandbox.servers.kafka import KafkaGuard, KafkaServer
from tests.runtime.traffic.certificates import Authority

DOCS = Path(__file__).parents[3] / "docs" / "outbox.md"
PASSWORD = "a-password-of-a-test"
_RIGHTS = re.compile(r"^\| `([a-z]+)` \| (topic|group) \| `([a-z.-]+)` \| ([A-Za-z, ]+) \|$", re.MULTILINE)
_VARIABLES = (USER_VARIABLE, PASSWORD_VARIABLE, CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE)


def rights_of_docs() -> list[AclBinding]:
    """What a Kafka lets each role do, as the docs say."""
    return [
        AclBinding(
            ResourceType[kind.upper()],
            name,
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
class GuardedKafka:
    """The broker, and the files by which its users are who they are."""

    server: KafkaServer
    directory: Path
    authority: Authority
    by_certificate: bool

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def shown(self, role: BusRole) -> dict[str, str]:
        """The environment of a process of ``role``."""
        environment = {CA_VARIABLE: str(self.ca_file)}
        if not self.by_certificate:
            return environment | {USER_VARIABLE: role, PASSWORD_VARIABLE: PASSWORD}
        files = {CERTIFICATE_VARIABLE: f"{role}.crt", KEY_VARIABLE: f"{role}.key"}
        return environment | {name: str(self.directory / file) for name, file in files.items()}

    def become(self, environment: pytest.MonkeyPatch, role: BusRole) -> None:
        """Make this process one of ``role``."""
        for name in _VARIABLES:
            environment.delenv(name, raising=False)
        for name, value in self.shown(role).items():
            environment.setenv(name, value)


def guarded_kafka(directory: Path, *, by_certificate: bool) -> GuardedKafka:
    """A broker that is not started yet."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    certificate, key, _ = authority.sign("localhost")
    (directory / "broker.pem").write_bytes(key + certificate)
    (directory / "ca.pem").write_bytes(authority.pem)
    if by_certificate:
        for role in BUS_ROLES:
            certificate, key, _ = authority.sign(called=role)
            (directory / f"{role}.crt").write_bytes(certificate)
            (directory / f"{role}.key").write_bytes(key)
    guard = KafkaGuard(
        {} if by_certificate else dict.fromkeys(BUS_ROLES, PASSWORD),
        directory / "broker.pem",
        believed=directory / "ca.pem" if by_certificate else None,
        rights=rights_of_docs(),
    )
    return GuardedKafka(KafkaServer(directory / "kafka", guard=guard), directory, authority, by_certificate)
