"""The bus: NATS JetStream, a cluster of members with a disk each, or a Kafka that is there already.

Either with the streams that are declared on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.pods.access import AccessArgs, From, To
from components.pods.config_map import config_map
from components.pods.labels import service_host
from components.pods.pod import ConfigFiles, HttpCheck, PodArgs, Scratch, SecretFiles
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.stateful_workload import Disk, StatefulWorkload, StatefulWorkloadArgs, headless
from components.pods.task import Task, TaskArgs
from components.processes.bus_credentials import (
    ACCESS_FILE,
    ROUTE_ACCESS_FILE,
    SERVER_DIRECTORY,
    BusCredentials,
    BusCredentialsArgs,
)
from kilo.bus.config import CLIENT_PORT, MONITOR_PORT, ROUTE_PORT
from kilo.contract import BusOutputs

CONFIG_DIRECTORY = "/etc/nats"
CONFIG_FILE = "nats.conf"
DATA_DIRECTORY = "/data"
# A path in an include is relative to the file's own directory, an absolute one too.
INCLUDE_ACCESS = f'include "../{SERVER_DIRECTORY.removeprefix("/etc/")}/{ACCESS_FILE}"\n'
INCLUDE_ROUTE_ACCESS = f'include "../{SERVER_DIRECTORY.removeprefix("/etc/")}/{ROUTE_ACCESS_FILE}"\n'
STREAMS_TASK = "bus-streams"


def bus_url(name: str, namespace: str) -> str:
    """The URL by which the bus ``name`` is reached."""
    return f"tls://{service_host(name, namespace)}:{CLIENT_PORT}"


def server_names(name: str, namespace: str, replicas: int) -> list[str]:
    """What the certificate of the bus ``name`` is of.

    The first is what clients ask for. It is nobody's address, so nothing translates it on its way to them.
    """
    members = [member_host(name, index, namespace) for index in range(replicas)]
    return [f"{name}.{namespace}", service_host(name, namespace), *members]


def member_host(name: str, index: int, namespace: str) -> str:
    """The full name of one member of the bus ``name``, counted from 0."""
    return f"{name}-{index}.{service_host(headless(name), namespace)}"


@dataclass(frozen=True)
class MessageBusArgs:
    """The members, their disks, their configuration file and their clients."""

    context: RuntimeContext
    image: str
    replicas: int
    storage_gibibytes: int
    storage_class: str | None
    config: str
    """``nats.conf`` for a server that is given its address and name by flags; it includes
    :data:`INCLUDE_ACCESS`, and :data:`INCLUDE_ROUTE_ACCESS` where there are several members."""
    bus: BusOutputs
    """What lies on it, by which its users' permissions are."""
    streams_arguments: Sequence[str]
    """The command line that declares the streams."""
    clients: Sequence[str]
    """The workloads that may connect."""
    apart: bool = False
    """Whether no two members may be on one node."""
    generation: int = 1
    """Of its users and certificates; see :mod:`components.processes.bus_credentials`."""
    former_accepted: bool = False
    disks_kept: bool = True
    """Whether what lies on the disks outlives the members."""


class MessageBus(pulumi.ComponentResource):
    """NATS and its streams."""

    def __init__(self, name: str, args: MessageBusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:events:MessageBus", name, {}, opts)
        context = args.context
        config_name = f"{name}-config"
        config = config_map(name, config_name, context.namespace, {CONFIG_FILE: args.config}, self)
        credentials = BusCredentials(
            name,
            BusCredentialsArgs(
                namespace=context.namespace,
                bus=args.bus,
                server_names=server_names(name, context.namespace, args.replicas),
                generation=args.generation,
                former_accepted=args.former_accepted,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        servers = StatefulWorkload(
            name,
            StatefulWorkloadArgs(
                access=AccessArgs(
                    namespace=context.namespace,
                    ingress=[
                        *(
                            From(port=CLIENT_PORT, workload=client)
                            for client in (*args.clients, STREAMS_TASK)
                        ),
                        From(port=ROUTE_PORT, workload=name),
                        From(port=MONITOR_PORT, namespace=context.monitoring_namespace),
                    ],
                    egress=[To(port=ROUTE_PORT, workload=name)],
                ),
                pod=PodArgs(
                    image=args.image,
                    command=["nats-server"],
                    arguments=[
                        "--config",
                        f"{CONFIG_DIRECTORY}/{CONFIG_FILE}",
                        "--addr",
                        "$(POD_IP)",
                        "--name",
                        "$(POD_NAME)",
                    ],
                    files=[
                        ConfigFiles(config_name, CONFIG_DIRECTORY),
                        SecretFiles(credentials.server_secret, SERVER_DIRECTORY),
                    ],
                    scratch=[Scratch("/tmp", 64)],  # noqa: S108  the pod's own
                    ports={"client": CLIENT_PORT, "route": ROUTE_PORT, "monitor": MONITOR_PORT},
                    alive=HttpCheck("/healthz?js-server-only=true", "monitor"),
                    ready=HttpCheck("/healthz", "monitor"),
                    # It reads its streams before it is alive: some minutes with hundreds of gigabytes.
                    start_seconds=900,
                    apart=args.apart,
                    cpu_millicores=500,
                    memory_mebibytes=1_024,
                    # A member hands its leaderships over before it stops.
                    stop_seconds=60,
                    annotations={
                        "kilo.dev/config-checksum": hashlib.sha256(args.config.encode()).hexdigest(),
                        "kilo.dev/access-checksum": credentials.checksum,
                    },
                ),
                replicas=args.replicas,
                disk=Disk(DATA_DIRECTORY, args.storage_gibibytes, args.storage_class, kept=args.disks_kept),
                service_ports={"client": CLIENT_PORT},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config, credentials]),
        )
        given = credentials.give(pulumi.ResourceOptions(parent=self, depends_on=[servers]))
        _declare_streams(
            context,
            args.streams_arguments,
            [To(port=CLIENT_PORT, workload=name)],
            pulumi.ResourceOptions(parent=self, depends_on=[servers, *given]),
        )
        self.register_outputs({"url": bus_url(name, context.namespace)})


@dataclass(frozen=True)
class ExistingBusArgs:
    """Where it is and what is declared on it."""

    context: RuntimeContext
    bus: Sequence[To]
    streams_arguments: Sequence[str]
    """The command line that declares the streams."""


class ExistingBus(pulumi.ComponentResource):
    """The streams on a bus that others run, such as a Kafka."""

    def __init__(self, name: str, args: ExistingBusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:events:ExistingBus", name, {}, opts)
        _declare_streams(args.context, args.streams_arguments, args.bus, pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


def _declare_streams(
    context: RuntimeContext, arguments: Sequence[str], bus: Sequence[To], opts: pulumi.ResourceOptions
) -> None:
    streams = Process(arguments=arguments, bus_role="operator", cpu_millicores=50, memory_mebibytes=128)
    Task(
        STREAMS_TASK,
        TaskArgs(access=runtime_access(context, streams, egress=bus), pod=runtime_pod(context, streams)),
        opts=opts,
    )
