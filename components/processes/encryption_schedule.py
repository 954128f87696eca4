"""When checkpoints of the audit log are signed, and when keys that are due are destroyed.

Two tasks that can do nothing of each other's: the one reads the log and adds to the locked bucket, the
other destroys wraps of retired keys and reaches no cloud at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.clouds.iam import Statement
from components.clouds.s3_locked_bucket import S3LockedBucket
from components.pods.pod import SecretKey
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.scheduled_task import ScheduledTask, ScheduledTaskArgs
from kilo.contract import AUDIT_PREFIX
from kilo.environment import AUDIT_KEY_VARIABLE

CHECKPOINT = "audit-checkpoint"
DESTRUCTION = "key-destruction"
SIGNING_KEY = "key.pem"
"""The entry of the Secret that holds the key which signs checkpoints."""


@dataclass(frozen=True)
class Checkpoints:
    """Who signs checkpoints and when, with which key, and where they go."""

    identity: CloudIdentity
    bucket: S3LockedBucket
    signing_key_secret: str
    """A Secret of the namespace."""
    schedule: str


@dataclass(frozen=True)
class EncryptionScheduleArgs:
    """Where both run, and when. Without ``checkpoints`` nothing is signed on a schedule."""

    context: RuntimeContext
    destruction_schedule: str
    checkpoints: Checkpoints | None = None


class EncryptionSchedule(pulumi.ComponentResource):
    """The checkpoint of the audit log, and the destruction of keys that are due."""

    def __init__(
        self, name: str, args: EncryptionScheduleArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:data:EncryptionSchedule", name, {}, opts)
        destruction = Process(
            arguments=["fle", "keys", "destroy-due"],
            database_role="destroyer",
            cpu_millicores=50,
            memory_mebibytes=128,
        )
        self._task(DESTRUCTION, args.context, destruction, args.destruction_schedule)
        if signing := args.checkpoints:
            allow_checkpoints(signing.identity, signing.bucket)
            checkpoint = Process(
                arguments=["fle", "audit", "checkpoint"],
                database_role="auditor",
                identity=signing.identity,
                secrets={AUDIT_KEY_VARIABLE: SecretKey(signing.signing_key_secret, SIGNING_KEY)},
                cpu_millicores=100,
                memory_mebibytes=256,
            )
            self._task(CHECKPOINT, args.context, checkpoint, signing.schedule)
        self.register_outputs({})

    def _task(self, name: str, context: RuntimeContext, process: Process, schedule: str) -> None:
        ScheduledTask(
            name,
            ScheduledTaskArgs(
                access=runtime_access(context, process),
                pod=runtime_pod(context, process),
                schedule=schedule,
                deadline_seconds=600,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )


def allow_checkpoints(identity: CloudIdentity, bucket: S3LockedBucket) -> None:
    """Let ``identity`` list and read checkpoints and add to them, but neither change nor delete one."""
    objects = [pulumi.Output.concat(bucket.arn, f"/{AUDIT_PREFIX}*")]
    identity.allow(
        "checkpoints",
        [
            Statement(
                "List",
                ["s3:ListBucketVersions"],
                [bucket.arn],
                {"StringLike": {"s3:prefix": f"{AUDIT_PREFIX}*"}},
            ),
            Statement("Read", ["s3:GetObjectVersion"], objects),
            Statement("Write", ["s3:PutObject", "s3:PutObjectRetention"], objects),
        ],
    )
