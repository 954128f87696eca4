"""An idempotent consumer of the stage's events: one effect an event, however often it is delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.access import To
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.workload import Workload, WorkloadArgs

PORT = 10_083


@dataclass(frozen=True)
class ConsumerArgs:
    """Where it runs, how many, for whom, and the bus."""

    context: RuntimeContext
    replicas: int
    identity: CloudIdentity | None
    """``None`` where no tenant has encrypted fields, so that no cloud is asked."""
    bus: Sequence[To]


class Consumer(pulumi.ComponentResource):
    """The consumer."""

    def __init__(self, name: str, args: ConsumerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:events:Consumer", name, {}, opts)
        process = Process(
            arguments=["consumer", "run"],
            port=PORT,
            database_role="consumer",
            bus_role="consumer",
            identity=args.identity,
            reads_tenants=True,
            cpu_millicores=250,
            memory_mebibytes=384,
            copies=args.replicas,
        )
        Workload(
            name,
            WorkloadArgs(
                access=runtime_access(args.context, process, egress=args.bus),
                pod=runtime_pod(args.context, process),
                replicas=args.replicas,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
