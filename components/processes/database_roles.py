"""The database's roles, each with only what its process needs, and the schema.

One Job migrates the schema and makes the roles, as the administrator. Of a stage it has the administrator's
URL by an identity of its own from the cloud's secrets, which the engine never reads; of a database that is
made with the stage, from a Secret. Every process gets the URL of its own role, in a Secret of its own;
passwords are made here and seen nowhere else.

A generation is a number of the stage's file; the next one makes every password anew, for a login of its own
beside the former one's. While ``former_accepted`` both get in, so whoever has not been replaced yet goes on;
without it the former ends, with the sessions that it has. The roles' Secrets come after the Job, so that no
process has a login that the database doesn't know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_random as random
from pulumi_kubernetes import core, meta

import kilo
from components.clouds.cloud_identity import CloudIdentity
from components.pods.database_address import DatabaseAddress
from components.pods.database_role import URL_KEY, DatabaseRole, roles_of, user_of
from components.pods.labels import labels
from components.pods.pod import SecretKey
from components.pods.runtime_pod import (
    Process,
    RuntimeContext,
    database_ca,
    database_egress,
    runtime_access,
    runtime_pod,
)
from components.pods.task import Task, TaskArgs
from kilo.callers import database_secret
from kilo.environment import URL_SECRET_VARIABLE
from kilo.logins import Generation, password_variable
from kilo.usage.settings import UsageSettings

SCHEMA_TASK = "schema"
PASSWORDS_SECRET = "database-passwords"  # noqa: S105  a name
"""What the Job sets: the password of each login."""


@dataclass(frozen=True)
class GivenAdministrator:
    """The administrator of a database that is made here."""

    url: pulumi.Output[str]
    """Secret: ``postgresql://user:password@host:port/name``."""


@dataclass(frozen=True)
class CloudAdministrator:
    """The administrator of a database that is there already."""

    secret_id: str
    """The name of the secret of AWS Secrets Manager that has the URL."""
    identity: CloudIdentity
    """Which may read it."""


@dataclass(frozen=True)
class DatabaseRolesArgs:
    """The database, and the image that migrates it."""

    context: RuntimeContext
    administrator: GivenAdministrator | CloudAdministrator
    schema_checksum: str
    """Changes with the schema, so that the migration runs again, whatever its image is called."""
    usage: UsageSettings | None = None
    """How long usage is kept, where it is collected."""
    former_accepted: bool = False
    """Whether the generation before that of ``context`` is let in as well."""

    @property
    def logins(self) -> Generation:
        """Which get in."""
        return Generation(self.context.database_generation, self.former_accepted)

    @property
    def roles(self) -> tuple[DatabaseRole, ...]:
        """Those that processes of the stage have."""
        return roles_of(usage=self.usage is not None)


class DatabaseRoles(pulumi.ComponentResource):
    """Passwords, Secrets and the migration Job."""

    def __init__(
        self, name: str, args: DatabaseRolesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:data:DatabaseRoles", name, {}, opts)
        self._name, self._args = name, args
        passwords: dict[tuple[DatabaseRole, int], random.RandomPassword] = {
            (role, generation): self._password(role, generation)
            for role in args.roles
            for generation in args.logins.accepted
        }
        given: dict[str, pulumi.Output[str]] = {
            password_variable(user_of(role, generation)): password.result
            for (role, generation), password in passwords.items()
        }
        itself = pulumi.ResourceOptions(parent=self)
        administrator, identity = args.administrator, None
        environment = {"PGSSLMODE": args.context.database.sslmode, **database_ca(args.context.database)}
        if isinstance(administrator, CloudAdministrator):
            identity = administrator.identity
            environment[URL_SECRET_VARIABLE] = administrator.secret_id
        else:
            given[URL_KEY] = administrator.url
        kept = self._secret("passwords", PASSWORDS_SECRET, given, itself)
        migrate = Process(
            arguments=["db", "migrate", *_logins(args.logins), *_windows(args.usage)],
            secrets={variable: SecretKey(PASSWORDS_SECRET, variable) for variable in given},
            environment=environment,
            identity=identity,
            annotations={"kilo.dev/schema-checksum": args.schema_checksum},
            cpu_millicores=100,
            memory_mebibytes=256,
        )
        migrated = Task(
            SCHEMA_TASK,
            TaskArgs(
                access=runtime_access(args.context, migrate, egress=[database_egress(args.context)]),
                pod=runtime_pod(args.context, migrate),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[kept]),
        )
        known = pulumi.ResourceOptions(parent=self, depends_on=[migrated])
        for role in args.roles:
            login = user_of(role, args.logins.number)
            password = passwords[role, args.logins.number].result
            data = _role_secret(args.context.database, login, password)
            self._secret(role, database_secret(role), data, known)
        self.register_outputs({"secrets": {role: database_secret(role) for role in args.roles}})

    def _password(self, role: DatabaseRole, generation: int) -> random.RandomPassword:
        return random.RandomPassword(
            # The first is called as it was before there could be another.
            f"{self._name}-{role}" if generation == 1 else f"{self._name}-{role}-{generation}",
            length=40,
            special=False,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _secret(
        self, name: str, secret: str, data: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
    ) -> core.v1.Secret:
        return core.v1.Secret(
            f"{self._name}-{name}",
            metadata=meta.v1.ObjectMetaArgs(
                name=secret, namespace=self._args.context.namespace, labels=labels(secret)
            ),
            type="Opaque",
            string_data=data,
            opts=opts,
        )


def _logins(logins: Generation) -> list[str]:
    former = ["--former-accepted"] if logins.former_accepted else []
    return ["--generation", str(logins.number), *former]


def _windows(usage: UsageSettings | None) -> list[str]:
    if usage is None:
        return []
    hours, days = usage.hours_keep_days, usage.days_keep_days
    return ["--usage-hours-keep-days", str(hours), "--usage-days-keep-days", str(days)]


def _role_secret(
    database: DatabaseAddress, login: str, password: pulumi.Output[str]
) -> dict[str, pulumi.Input[str]]:
    """The URL for processes that take one, and its parts for those that don't (Debezium)."""
    return {
        URL_KEY: password.apply(lambda known: database.url(login, known)),
        "host": database.host,
        "port": str(database.port),
        "dbname": database.name,
        "username": login,
        "password": password,
    }


def schema_checksum() -> str:
    """SHA-256 over the migrations' names and texts, in hexadecimal."""
    digest = hashlib.sha256()
    # By path: importing the migrator would bring a database driver into the program.
    for file in sorted((Path(kilo.__file__).parent / "database" / "migrations").glob("*.sql")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
