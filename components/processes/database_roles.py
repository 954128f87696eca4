"""The database's roles, each with only what its process needs, and the schema.

The administrator's URL is given to one Job, which migrates the schema and makes the roles. Every
process gets the URL of its own role, in a Secret of its own; passwords are made here and seen
nowhere else.

A generation is a number of the stage's file; the next one makes every password anew, for a login of its own
beside the former one's. While ``former_accepted`` both get in, so whoever has not been replaced yet goes on;
without it the former ends, with the sessions that it has. The roles' Secrets come after the Job, so that no
process has a login that the database doesn't know.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pulumi
import pulumi_random as random
from pulumi_kubernetes import core, meta

import kilo
from components.pods.database_role import URL_KEY, DatabaseRole, roles_of, user_of
from components.pods.labels import labels
from components.pods.pod import SecretKey
from components.pods.runtime_pod import Process, RuntimeContext, database_egress, runtime_access, runtime_pod
from components.pods.task import Task, TaskArgs
from kilo.callers import ADMIN, database_secret
from kilo.logins import Generation, password_variable
from kilo.usage.settings import UsageSettings

ADMIN_SECRET = database_secret(ADMIN)


@dataclass(frozen=True)
class DatabaseRolesArgs:
    """The database, and the image that migrates it."""

    context: RuntimeContext
    admin_url: pulumi.Output[str]
    """Secret: ``postgresql://user:password@host:port/name?options``."""
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
        given = {
            password_variable(user_of(role, generation)): password.result
            for (role, generation), password in passwords.items()
        }
        itself = pulumi.ResourceOptions(parent=self)
        admin = self._secret("admin", ADMIN_SECRET, {URL_KEY: args.admin_url, **given}, itself)
        migrate = Process(
            arguments=["db", "migrate", *_logins(args.logins), *_windows(args.usage)],
            secrets={variable: SecretKey(ADMIN_SECRET, variable) for variable in (URL_KEY, *given)},
            annotations={"kilo.dev/schema-checksum": args.schema_checksum},
            cpu_millicores=100,
            memory_mebibytes=256,
        )
        migrated = Task(
            "schema",
            TaskArgs(
                access=runtime_access(args.context, migrate, egress=[database_egress(args.context)]),
                pod=runtime_pod(args.context, migrate),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[admin]),
        )
        known = pulumi.ResourceOptions(parent=self, depends_on=[migrated])
        for role in args.roles:
            login = user_of(role, args.logins.number)
            password = passwords[role, args.logins.number].result
            self._secret(role, database_secret(role), _role_secret(args.admin_url, login, password), known)
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
        self, name: str, secret: str, data: dict[str, pulumi.Output[str]], opts: pulumi.ResourceOptions
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
    admin_url: pulumi.Output[str], login: str, password: pulumi.Output[str]
) -> dict[str, pulumi.Output[str]]:
    """The URL for processes that take one, and its parts for those that don't (Debezium)."""

    def part(name: str) -> pulumi.Output[str]:
        return admin_url.apply(lambda url: _parts(url)[name])

    return {
        URL_KEY: pulumi.Output.all(admin_url, password).apply(lambda both: _url_for(both[0], login, both[1])),
        "host": part("host"),
        "port": part("port"),
        "dbname": part("dbname"),
        "username": pulumi.Output.from_input(login),
        "password": password,
    }


def _url_for(admin_url: str, user: str, password: str) -> str:
    split = urlsplit(admin_url)
    host = split.netloc.rpartition("@")[2]
    return urlunsplit(split._replace(netloc=f"{user}:{password}@{host}"))


def _parts(url: str) -> dict[str, str]:
    split = urlsplit(url)
    return {
        "host": split.hostname or "",
        "port": str(split.port or 5432),
        "dbname": split.path.removeprefix("/"),
    }


def schema_checksum() -> str:
    """SHA-256 over the migrations' names and texts, in hexadecimal."""
    digest = hashlib.sha256()
    # By path: importing the migrator would bring a database driver into the program.
    for file in sorted((Path(kilo.__file__).parent / "database" / "migrations").glob("*.sql")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
