"""A PostgreSQL of a namespace's own, which goes with it: the database of a preview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_random as random
from pulumi_kubernetes import core, meta

from components.pods.access import AccessArgs, From
from components.pods.database_role import URL_KEY
from components.pods.labels import labels, service_host
from components.pods.pod import HttpCheck, PodArgs, Scratch, SecretKey
from components.pods.stateful_workload import Disk, StatefulWorkload, StatefulWorkloadArgs

PORT = 5_432
HEALTH_PORT = 10_087
DATA_DIRECTORY = "/data"
DATABASE = "service"
"""The database and the service's role: what ``kilo db serve`` calls both."""
_OWNER_ROLE = f"{DATABASE}_owner"
_ADMIN, _OWNER, _SERVICE = "KILO_ADMIN_PASSWORD", "KILO_OWNER_PASSWORD", "KILO_SERVICE_PASSWORD"


@dataclass(frozen=True)
class OwnDatabaseArgs:
    """Where it runs, who may connect, and for which service."""

    namespace: str
    image: str
    service: str
    clients: Sequence[str]
    storage_class: str | None = None


class OwnDatabase(pulumi.ComponentResource):
    """The server, its disk, its passwords, and the Secrets by which the service's chart finds it.

    ``SERVICE-database-owner`` has the URL of the role that makes the tables, ``SERVICE-database`` that
    of the one that reads and writes them.
    """

    admin_url: pulumi.Output[str]
    host: str

    def __init__(self, name: str, args: OwnDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:data:OwnDatabase", name, {}, opts)
        self._name, self._args = name, args
        self.host = service_host(name, args.namespace)
        admin, owner, service = (self._password(role) for role in ("admin", "owner", "service"))
        self.admin_url = self._url("postgres", admin)
        passwords = self._secret(f"{name}-passwords", {_ADMIN: admin, _OWNER: owner, _SERVICE: service})
        self._secret(f"{args.service}-database", {URL_KEY: self._url(DATABASE, service)})
        self._secret(f"{args.service}-database-owner", {URL_KEY: self._url(_OWNER_ROLE, owner)})
        StatefulWorkload(
            name,
            StatefulWorkloadArgs(
                access=AccessArgs(
                    namespace=args.namespace,
                    ingress=[From(port=PORT, workload=client) for client in args.clients],
                ),
                pod=PodArgs(
                    image=args.image,
                    arguments=[
                        "db",
                        "serve",
                        f"--data={DATA_DIRECTORY}",
                        f"--database-port={PORT}",
                        f"--port={HEALTH_PORT}",
                    ],
                    secrets={
                        each: SecretKey(f"{name}-passwords", each) for each in (_ADMIN, _OWNER, _SERVICE)
                    },
                    scratch=[Scratch("/tmp", 64)],  # noqa: S108  the pod's own
                    ports={"database": PORT, "health": HEALTH_PORT},
                    alive=HttpCheck("/livez", "health"),
                    started=HttpCheck("/readyz", "health"),
                    ready=HttpCheck("/readyz", "health"),
                    cpu_millicores=100,
                    memory_mebibytes=256,
                ),
                replicas=1,
                disk=Disk(DATA_DIRECTORY, 1, args.storage_class, kept=False),
                service_ports={"database": PORT},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[passwords]),
        )
        self.register_outputs({"host": self.host})

    def _password(self, role: str) -> pulumi.Output[str]:
        return random.RandomPassword(
            f"{self._name}-{role}", length=40, special=False, opts=pulumi.ResourceOptions(parent=self)
        ).result

    def _url(self, user: str, password: pulumi.Output[str]) -> pulumi.Output[str]:
        return password.apply(lambda value: f"postgresql://{user}:{value}@{self.host}:{PORT}/{DATABASE}")

    def _secret(self, name: str, data: dict[str, pulumi.Output[str]]) -> core.v1.Secret:
        return core.v1.Secret(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=self._args.namespace, labels=labels(name)),
            type="Opaque",
            string_data=data,
            opts=pulumi.ResourceOptions(parent=self),
        )
