"""Work that runs to its end once: a Job. It runs again when its image or arguments change."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import batch, meta

from components.pods.access import Access, AccessArgs
from components.pods.labels import labels
from components.pods.pod import PodArgs, pod_template


@dataclass(frozen=True)
class TaskArgs:
    """The pod, and how long and how often it may try."""

    access: AccessArgs
    pod: PodArgs
    attempts: int = 6
    deadline_seconds: int = 600


class Task(pulumi.ComponentResource):
    """ServiceAccount, NetworkPolicy and Job. ``pulumi up`` waits until the Job has succeeded."""

    job: batch.v1.Job

    def __init__(self, name: str, args: TaskArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:cluster:Task", name, {}, opts)
        access = Access(name, args.access, opts=pulumi.ResourceOptions(parent=self))
        self.job = batch.v1.Job(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=args.access.namespace, labels=labels(name)),
            spec=batch.v1.JobSpecArgs(
                backoff_limit=args.attempts,
                active_deadline_seconds=args.deadline_seconds,
                template=pod_template(name, args.pod, restart_policy="OnFailure"),
            ),
            # A Job can't be changed, only made anew, and its name is fixed.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[access], delete_before_replace=True),
        )
        self.register_outputs({})
