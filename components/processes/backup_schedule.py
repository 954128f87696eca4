"""When backups are made and copied to a store that missed one, when one is restored to see that it can be,
and what watches both stores.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.pod import Scratch
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.scheduled_task import ScheduledTask, ScheduledTaskArgs
from components.pods.workload import Workload, WorkloadArgs

BACKUP = "backup"
COMPLETION = "backup-completion"
DRILL = "backup-drill"
WATCH = "backup-exporter"
PORT = 10_087
_PART = Scratch("/tmp", 1_024)  # noqa: S108  the pod's own
"""Room for the largest part of an object that is being stored."""


@dataclass(frozen=True)
class BackupScheduleArgs:
    """Where it runs, when, as whom, and the room that a drill restores into."""

    context: RuntimeContext
    writer: CloudIdentity
    completer: CloudIdentity
    restorer: CloudIdentity
    watcher: CloudIdentity
    schedule: str
    completion_schedule: str
    drill_schedule: str
    drill_space_gibibytes: int
    drill_storage_class: str | None = None
    """Of a disk for the drill; without it, the drill restores into the node's own."""


class BackupSchedule(pulumi.ComponentResource):
    """The backup, its completion, the restore drill and the exporter of their metrics."""

    def __init__(
        self, name: str, args: BackupScheduleArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:data:BackupSchedule", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        backup = Process(
            arguments=["backup", "run"],
            database_role="backup",
            identity=args.writer,
            scratch=[_PART],
            cpu_millicores=1_000,
            memory_mebibytes=512,
        )
        completion = Process(
            arguments=["backup", "complete"],
            identity=args.completer,
            scratch=[_PART],
            cpu_millicores=250,
            memory_mebibytes=512,
        )
        # The drill restores into a scratch PostgreSQL of its own, so it needs room and no database role.
        drill = Process(
            arguments=["backup", "drill"],
            identity=args.restorer,
            scratch=[
                Scratch(
                    "/tmp",  # noqa: S108  the pod's own
                    args.drill_space_gibibytes * 1_024,
                    storage_class=args.drill_storage_class,
                )
            ],
            cpu_millicores=500,
            memory_mebibytes=1_024,
        )
        for task, process, schedule in (
            (BACKUP, backup, args.schedule),
            (COMPLETION, completion, args.completion_schedule),
            (DRILL, drill, args.drill_schedule),
        ):
            ScheduledTask(
                task,
                ScheduledTaskArgs(
                    access=runtime_access(args.context, process),
                    pod=runtime_pod(args.context, process),
                    schedule=schedule,
                    deadline_seconds=6 * 3_600,
                ),
                opts=child,
            )
        exporter = Process(
            arguments=["backup", "exporter"],
            port=PORT,
            identity=args.watcher,
            cpu_millicores=50,
            memory_mebibytes=256,
        )
        Workload(
            WATCH,
            WorkloadArgs(
                access=runtime_access(args.context, exporter),
                pod=runtime_pod(args.context, exporter),
                replicas=1,
            ),
            opts=child,
        )
        self.register_outputs({})
