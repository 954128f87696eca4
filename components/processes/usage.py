"""Usage: a collector beside each gateway, and one counter for what the platform counts by itself.

The collector has no probe: a gateway serves whether its usage is counted or not, and a pod is ready when each
of its containers says so. What a collector does not read waits in the pod's own directory; the metric
``usage_waiting_bytes`` says how much that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import pulumi

from components.pods.access import From, To
from components.pods.database_address import DatabaseAddress
from components.pods.database_role import GENERATION, URL_KEY, USAGE
from components.pods.pod import PodArgs, Scratch, SecretKey
from components.pods.runtime_pod import (
    OUTPUTS,
    Process,
    RuntimeContext,
    database_ca,
    runtime_access,
    runtime_pod,
)
from components.pods.workload import Workload, WorkloadArgs
from kilo.callers import database_secret
from kilo.environment import DATABASE_VARIABLE
from kilo.observe.logs import LOG_VARIABLE
from kilo.traffic.envoy import admin_socket

LOG_DIRECTORY = "/var/log/kilo"
LOG_FILE = f"{LOG_DIRECTORY}/usage.log"
COLLECTOR = "usage-collector"
COUNTER = "usage-counter"
PORT_NAME = "usage"
COLLECTOR_PORT = 10_091
COUNTER_PORT = 10_092
DIRECTORY = Scratch(LOG_DIRECTORY, 256, shared="usage-log")
"""The gateway's and the collector's. The collector makes room long before it is full."""


@dataclass(frozen=True)
class CollectorArgs:
    """What a collector needs that the gateway does not."""

    image: str
    database_network: str
    database: DatabaseAddress
    database_generation: int = 1
    """Which users of the database there are; see :class:`RuntimeContext`."""


def collector_pod(args: CollectorArgs) -> PodArgs:
    """The container beside a gateway."""
    return PodArgs(
        image=args.image,
        arguments=[
            *("usage", "collect", "--file", LOG_FILE, "--admin", admin_socket()),
            *("--port", str(COLLECTOR_PORT)),
        ],
        environment={LOG_VARIABLE: "json", **database_ca(args.database)},
        secrets={DATABASE_VARIABLE: SecretKey(database_secret(USAGE), URL_KEY)},
        files=[OUTPUTS] if args.database.has_ca else [],
        scratch=[DIRECTORY],
        ports={PORT_NAME: COLLECTOR_PORT},
        cpu_millicores=50,
        memory_mebibytes=192,
        annotations={GENERATION: str(args.database_generation)},
    )


def collector_access(args: CollectorArgs, monitoring_namespace: str) -> tuple[From, To]:
    """Who asks a collector for its metrics, and what it reaches."""
    return (
        From(port=COLLECTOR_PORT, namespace=monitoring_namespace),
        To(port=args.database.port, network=args.database_network),
    )


@dataclass(frozen=True)
class UsageCounterArgs:
    """Where it runs, and which Prometheus it asks."""

    context: RuntimeContext
    prometheus_url: str


class UsageCounter(pulumi.ComponentResource):
    """Counts events, encryption and storage, and looks after the usage tables."""

    def __init__(self, name: str, args: UsageCounterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:observability:UsageCounter", name, {}, opts)
        counter = Process(
            arguments=["usage", "count"],
            port=COUNTER_PORT,
            database_role=USAGE,
            cpu_millicores=50,
            memory_mebibytes=192,
        )
        address = urlsplit(args.prometheus_url)
        prometheus = To(
            port=address.port or (443 if address.scheme == "https" else 80),
            namespace=args.context.monitoring_namespace,
        )
        Workload(
            COUNTER,
            WorkloadArgs(
                access=runtime_access(args.context, counter, egress=[prometheus]),
                pod=runtime_pod(args.context, counter),
                replicas=1,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
