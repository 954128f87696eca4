"""Debezium Server: carries the aggregates chosen for CDC from the write-ahead log to the bus.

One pod, never two: a replication slot has one reader. Where it was is the slot's to know, in the database:
its file of offsets goes with the pod, and no disk ties it to a zone. What the slot had not confirmed comes
again and has no second effect. Debezium ends when the bus goes away, with exit code 0; Kubernetes starts it
again. It can also stand still and call itself alive, so a sidecar that sees the slot answers its liveness
probe. TLS to NATS is the sidecar's too (:mod:`kilo.cdc.tunnel`); to Kafka it is Debezium's own.
The publication and the slot belong to the database's schema, not to Debezium.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.pods.access import CLOUD_APIS, AccessArgs, From, To
from components.pods.bus_user import GENERATION, BusUsers
from components.pods.config_map import config_map
from components.pods.pod import ConfigFiles, HttpCheck, PodArgs, Scratch, SecretKey
from components.pods.runtime_pod import OUTPUTS, Process, RuntimeContext, database_egress, runtime_pod
from components.pods.stateful_workload import StatefulWorkload, StatefulWorkloadArgs
from kilo.bus.access import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    SECRET_FILES,
    TOKEN_CA_VARIABLE,
    TOKEN_SCOPE_VARIABLE,
    TOKEN_URL_VARIABLE,
    USER_VARIABLE,
    Shown,
)
from kilo.callers import database_secret
from kilo.cdc.properties import ALLOWED_URLS, CONNECTOR_PATH

PORT = 10_085
WATCH_PORT = 10_087
TUNNEL_PORT = 10_093
TUNNEL_URL = f"nats://${{POD_IP}}:{TUNNEL_PORT}"
"""Where it reaches a bus with TLS, which its sidecar does for it."""
WATCH = "watch"
LIVENESS_PATH = "/q/health/live"
MEMORY_MEBIBYTES = 1_024
CONFIG_DIRECTORY = "/debezium/config"
CONFIG_FILE = "application.properties"
DATA_DIRECTORY = "/debezium/data"
OFFSETS_FILE = f"{DATA_DIRECTORY}/offsets.dat"
DATABASE_VARIABLES = {
    "DATABASE_HOST": "host",
    "DATABASE_PORT": "port",
    "DATABASE_NAME": "dbname",
    "DATABASE_USER": "username",
    "DATABASE_PASSWORD": "password",
}
_USER = {"BUS_USER": USER_VARIABLE, "BUS_PASSWORD": PASSWORD_VARIABLE}
BUS_VARIABLES: Mapping[Shown, Mapping[str, str]] = {
    "password": _USER,
    "token": _USER,
    "aws-msk-iam": {},
    "certificate": {
        "BUS_CERTIFICATE": SECRET_FILES[CERTIFICATE_VARIABLE],
        "BUS_KEY": SECRET_FILES[KEY_VARIABLE],
    },
}
"""Keys of its Secret, where the bus knows users."""
BUS_PLACES = {
    "BUS_CA": CA_VARIABLE,
    "BUS_TOKEN_CA": TOKEN_CA_VARIABLE,
    "BUS_TOKEN_URL": TOKEN_URL_VARIABLE,
    "BUS_TOKEN_SCOPE": TOKEN_SCOPE_VARIABLE,
}
"""What a process has by another name, where Debezium goes to the bus itself."""


@dataclass(frozen=True)
class ChangeCaptureArgs:
    """Where it runs, what it reads, and the bus."""

    context: RuntimeContext
    image: str
    properties: str
    """``application.properties``; secrets stand in it as ``${DATABASE_PASSWORD}`` and the like."""
    bus: Sequence[To]
    tunnel: bool = True
    """Whether its sidecar carries what it says to the bus, which is NATS."""
    paused: bool = False
    """Without a pod; the slot keeps the log."""


class ChangeCapture(pulumi.ComponentResource):
    """Debezium Server with its configuration."""

    def __init__(
        self, name: str, args: ChangeCaptureArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:events:ChangeCapture", name, {}, opts)
        config_name = f"{name}-config"
        config = config_map(name, config_name, args.context.namespace, {CONFIG_FILE: args.properties}, self)
        secret, users = database_secret("cdc"), args.context.bus_users
        tunnelled = args.tunnel and users is not None
        places = users.places() if users and not tunnelled else {}
        url = places.get(TOKEN_URL_VARIABLE)
        identity = users.identities.get("cdc") if users else None
        watch = Process(
            arguments=[
                *("cdc", "watch", "--connector", f"http://$(POD_IP):{PORT}{LIVENESS_PATH}"),
                *(["--tunnel-port", str(TUNNEL_PORT)] if tunnelled else []),
            ],
            port=WATCH_PORT,
            database_role="cdc",
            bus_role="cdc" if tunnelled else None,
            cpu_millicores=50,
            memory_mebibytes=128,
        )
        StatefulWorkload(
            name,
            StatefulWorkloadArgs(
                access=AccessArgs(
                    namespace=args.context.namespace,
                    ingress=[From(port=WATCH_PORT, namespace=args.context.monitoring_namespace)],
                    identity=identity,
                    egress=[
                        *args.bus,
                        database_egress(args.context),
                        *([CLOUD_APIS] if identity else []),
                    ],
                ),
                pod=PodArgs(
                    image=args.image,
                    arguments=[],
                    environment={
                        "QUARKUS_HTTP_HOST": "$(POD_IP)",
                        "QUARKUS_HTTP_PORT": str(PORT),
                        # Half of the pod's memory; the other half is for threads, buffers and code.
                        "JAVA_OPTS": f"-Xmx{MEMORY_MEBIBYTES // 2}m -XX:+UseSerialGC"
                        + (f" -D{ALLOWED_URLS}={url}" if url else ""),
                        **{name: places[known] for name, known in BUS_PLACES.items() if known in places},
                    },
                    secrets={
                        **{variable: SecretKey(secret, key) for variable, key in DATABASE_VARIABLES.items()},
                        **(_bus_variables(users) if users else {}),
                    },
                    files=[
                        ConfigFiles(config_name, CONFIG_DIRECTORY),
                        *([OUTPUTS] if args.context.database.has_ca else []),
                        *([users.files("cdc")] if users and not tunnelled else []),
                    ],
                    scratch=[Scratch("/tmp", 128), Scratch(DATA_DIRECTORY, 16)],  # noqa: S108  the pod's own
                    ports={"health": PORT},
                    started=HttpCheck(LIVENESS_PATH, "health"),
                    alive=HttpCheck(CONNECTOR_PATH, WATCH_PORT),
                    ready=HttpCheck("/q/health/ready", "health"),
                    start_seconds=120,
                    cpu_millicores=500,
                    memory_mebibytes=MEMORY_MEBIBYTES,
                    identity=identity,
                    aws_region=args.context.aws_region,
                    annotations={
                        "kilo.dev/config-checksum": hashlib.sha256(args.properties.encode()).hexdigest(),
                        **({GENERATION: users.generation} if users and not tunnelled else {}),
                    },
                    sidecars={WATCH: runtime_pod(args.context, watch)},
                ),
                replicas=0 if args.paused else 1,
                disk=None,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config]),
        )
        self.register_outputs({})


def _bus_variables(users: BusUsers) -> dict[str, SecretKey]:
    keys = BUS_VARIABLES[users.shown]
    return {variable: SecretKey(users.secrets["cdc"], key) for variable, key in keys.items()}
