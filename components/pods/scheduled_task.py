"""Work that runs to its end on a schedule: a CronJob, in UTC, never two at once."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import batch, meta

from components.pods.access import Access, AccessArgs
from components.pods.labels import labels
from components.pods.pod import PodArgs, pod_template


@dataclass(frozen=True)
class ScheduledTaskArgs:
    """The pod, when it runs, and how long a run may take."""

    access: AccessArgs
    pod: PodArgs
    schedule: str
    """Five cron fields, UTC."""
    deadline_seconds: int
    suspended: bool = False
    start_within_seconds: int = 600
    """A run that could not start within this time is skipped, and counted as missed by its alert."""


class ScheduledTask(pulumi.ComponentResource):
    """ServiceAccount, NetworkPolicy and CronJob."""

    def __init__(
        self, name: str, args: ScheduledTaskArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:cluster:ScheduledTask", name, {}, opts)
        access = Access(name, args.access, opts=pulumi.ResourceOptions(parent=self))
        batch.v1.CronJob(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=args.access.namespace, labels=labels(name)),
            spec=batch.v1.CronJobSpecArgs(
                schedule=args.schedule,
                time_zone="Etc/UTC",
                concurrency_policy="Forbid",
                # Left out otherwise, as it is on every task that was never suspended.
                suspend=args.suspended or None,
                starting_deadline_seconds=args.start_within_seconds,
                successful_jobs_history_limit=3,
                failed_jobs_history_limit=5,
                job_template=batch.v1.JobTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=labels(name)),
                    spec=batch.v1.JobSpecArgs(
                        backoff_limit=2,
                        active_deadline_seconds=args.deadline_seconds,
                        template=pod_template(name, args.pod, restart_policy="Never"),
                    ),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[access]),
        )
        self.register_outputs({})
