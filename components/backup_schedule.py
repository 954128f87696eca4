"""When backups are made, and when one is restored to see that it can be."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.cloud_identity import CloudIdentity
from components.pod import Scratch
from components.runtime_pod import Process, RuntimePlace, runtime_access, runtime_pod
from components.scheduled_task import ScheduledTask, ScheduledTaskArgs

BACKUP = "backup"
DRILL = "backup-drill"


@dataclass(frozen=True)
class BackupScheduleArgs:
    """Where it runs, when, as whom, and the room that a drill restores into."""

    place: RuntimePlace
    writer: CloudIdentity
    restorer: CloudIdentity
    schedule: str
    drill_schedule: str
    drill_space_gibibytes: int


class BackupSchedule(pulumi.ComponentResource):
    """The backup and the restore drill."""

    def __init__(
        self, name: str, args: BackupScheduleArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:data:BackupSchedule", name, {}, opts)
        backup = Process(
            arguments=["backup", "run"],
            database_role="backup",
            identity=args.writer,
            cpu_millicores=500,
            memory_mebibytes=512,
        )
        # The drill restores into a scratch PostgreSQL of its own, so it needs room and no database role.
        drill = Process(
            arguments=["backup", "drill"],
            identity=args.restorer,
            scratch=[Scratch("/tmp", args.drill_space_gibibytes * 1_024)],  # noqa: S108  the pod's own
            cpu_millicores=500,
            memory_mebibytes=1_024,
        )
        for task, process, schedule in ((BACKUP, backup, args.schedule), (DRILL, drill, args.drill_schedule)):
            ScheduledTask(
                task,
                ScheduledTaskArgs(
                    access=runtime_access(args.place, process),
                    pod=runtime_pod(args.place, process),
                    schedule=schedule,
                    deadline_seconds=6 * 3_600,
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
