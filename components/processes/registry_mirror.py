"""What keeps the mirror whole: a worker that follows push events, and a sweep for what events missed."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.pod import Scratch
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.scheduled_task import ScheduledTask, ScheduledTaskArgs
from components.pods.workload import Workload, WorkloadArgs

PORT = 10_084
SWEEP = "registry-sweep"
_SCRATCH = (Scratch("/tmp", 256),)  # noqa: S108  the pod's own


@dataclass(frozen=True)
class RegistryMirrorArgs:
    """Where it runs, how often it sweeps, and as whom."""

    context: RuntimeContext
    mirror_identity: CloudIdentity
    sweep_identity: CloudIdentity
    sweep_schedule: str
    mirroring: bool = True


class RegistryMirror(pulumi.ComponentResource):
    """The mirror's worker and its sweep."""

    def __init__(
        self, name: str, args: RegistryMirrorArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:artifacts:RegistryMirror", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        worker = Process(
            arguments=["registry", "mirror"],
            port=PORT,
            identity=args.mirror_identity,
            scratch=_SCRATCH,
            cpu_millicores=100,
            memory_mebibytes=256,
        )
        Workload(
            name,
            WorkloadArgs(
                access=runtime_access(args.context, worker),
                pod=runtime_pod(args.context, worker),
                replicas=1 if args.mirroring else 0,
            ),
            opts=child,
        )
        sweep = Process(
            arguments=["registry", "sweep"],
            identity=args.sweep_identity,
            scratch=_SCRATCH,
            cpu_millicores=100,
            memory_mebibytes=256,
        )
        ScheduledTask(
            SWEEP,
            ScheduledTaskArgs(
                access=runtime_access(args.context, sweep),
                pod=runtime_pod(args.context, sweep),
                schedule=args.sweep_schedule,
                suspended=not args.mirroring,
                deadline_seconds=3_600,
            ),
            opts=child,
        )
        self.register_outputs({})
