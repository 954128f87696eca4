"""What carries the outbox to the bus: the worker, and the reconciler that proves nothing was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.pods.access import To
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.workload import Workload, WorkloadArgs
from kilo.bus.roles import BusRole

WORKER_PORT = 10_082
RECONCILER_PORT = 10_086


@dataclass(frozen=True)
class OutboxArgs:
    """Where it runs, how many workers share the work, and the bus."""

    context: RuntimeContext
    workers: int
    bus: Sequence[To]
    reconciles: bool = True


class Outbox(pulumi.ComponentResource):
    """The outbox's worker and reconciler."""

    def __init__(self, name: str, args: OutboxArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:events:Outbox", name, {}, opts)
        self._run(
            f"{name}-worker", args, "worker", ["outbox", "worker"], port=WORKER_PORT, replicas=args.workers
        )
        if args.reconciles:
            self._run(
                f"{name}-reconciler",
                args,
                "reconciler",
                ["outbox", "reconcile"],
                port=RECONCILER_PORT,
                replicas=1,
            )
        self.register_outputs({})

    def _run(
        self,
        name: str,
        args: OutboxArgs,
        bus_role: BusRole,
        arguments: list[str],
        *,
        port: int,
        replicas: int,
    ) -> None:
        process = Process(
            arguments=arguments,
            port=port,
            database_role="worker",
            bus_role=bus_role,
            cpu_millicores=250,
            memory_mebibytes=384,
        )
        Workload(
            name,
            WorkloadArgs(
                access=runtime_access(args.context, process, egress=args.bus),
                pod=runtime_pod(args.context, process),
                replicas=replicas,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
