"""Where database backups lie: one locked bucket in each cloud, and the key they are encrypted with.

Backups are encrypted before they leave, so neither store is trusted with their content. Who writes
can neither read nor delete; who restores can't write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws
import pulumi_gcp as gcp

from components.cloud_identity import CloudIdentity
from components.gcs_locked_bucket import GcsLockedBucket, GcsLockedBucketArgs
from components.iam import Statement
from components.key_policy import KeyUser, key_policy
from components.options import keep
from components.s3_locked_bucket import S3LockedBucket, S3LockedBucketArgs

LOOK_AT_LOCK = ("s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning")


@dataclass(frozen=True)
class BackupVaultArgs:
    """Both stores, how long they lock and keep, and who uses the key."""

    primary_bucket: str
    primary_lock_mode: Literal["governance", "compliance"]
    secondary_bucket: str
    secondary_location: str
    secondary_locked: bool
    lock_days: int
    keep_days: int
    key_alias: str
    key_administrators: Sequence[str]
    key_users: Sequence[KeyUser]
    key_deletion_window_days: int
    key_context: Mapping[str, str]
    protect: bool
    tags: Mapping[str, str]


class BackupVault(pulumi.ComponentResource):
    """Two locked buckets and a key."""

    primary: S3LockedBucket
    secondary: GcsLockedBucket
    key_arn: pulumi.Output[str]
    key_alias: pulumi.Output[str]

    def __init__(self, name: str, args: BackupVaultArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:storage:BackupVault", name, {}, opts)
        self._name = name
        child = pulumi.ResourceOptions(parent=self)
        self.primary = S3LockedBucket(
            f"{name}-primary",
            S3LockedBucketArgs(
                bucket=args.primary_bucket,
                lock_mode=args.primary_lock_mode,
                lock_days=args.lock_days,
                keep_days=args.keep_days,
                protect=args.protect,
                tags=args.tags,
            ),
            opts=child,
        )
        self.secondary = GcsLockedBucket(
            f"{name}-secondary",
            GcsLockedBucketArgs(
                bucket=args.secondary_bucket,
                location=args.secondary_location,
                lock_days=args.lock_days,
                locked=args.secondary_locked,
                keep_days=args.keep_days,
                protect=args.protect,
                labels=args.tags,
            ),
            opts=child,
        )
        key = aws.kms.Key(
            name,
            description="Wraps the data keys of database backups",
            enable_key_rotation=True,
            rotation_period_in_days=365,
            deletion_window_in_days=args.key_deletion_window_days,
            policy=key_policy(args.key_administrators, args.key_users, args.key_context),
            tags=args.tags,
            opts=keep(self, args.protect),
        )
        alias = aws.kms.Alias(
            name, name=args.key_alias, target_key_id=key.key_id, opts=keep(self, args.protect)
        )
        self.key_arn, self.key_alias = key.arn, alias.name
        self.register_outputs(
            {"primary": self.primary.bucket, "secondary": self.secondary.bucket, "key_arn": self.key_arn}
        )

    def allow_writing(self, identity: CloudIdentity) -> None:
        """Let ``identity`` add backups and look at the locks, but neither read, change nor delete."""
        identity.allow(
            "write-backups",
            [
                Statement("LookAtLock", LOOK_AT_LOCK, [self.primary.arn]),
                Statement(
                    "Write",
                    [
                        "s3:AbortMultipartUpload",
                        "s3:GetObjectRetention",
                        "s3:PutObject",
                        "s3:PutObjectRetention",
                    ],
                    [self._objects()],
                ),
            ],
        )
        self._google(identity, "objectCreator")

    def allow_restoring(self, identity: CloudIdentity) -> None:
        """Let ``identity`` list and read backups, but not write."""
        identity.allow(
            "read-backups",
            [
                Statement("List", [*LOOK_AT_LOCK, "s3:ListBucket"], [self.primary.arn]),
                Statement(
                    "Read",
                    [
                        "s3:GetObject",
                        "s3:GetObjectAttributes",
                        "s3:GetObjectRetention",
                        "s3:GetObjectVersion",
                    ],
                    [self._objects()],
                ),
            ],
        )
        self._google(identity, "objectViewer")

    def _objects(self) -> pulumi.Output[str]:
        return pulumi.Output.concat(self.primary.arn, "/*")

    def _google(self, identity: CloudIdentity, role: str) -> None:
        for account, member in identity.google_members.items():
            gcp.storage.BucketIAMMember(
                f"{self._name}-{account}",
                bucket=self.secondary.bucket,
                role=f"roles/storage.{role}",
                member=member,
                opts=pulumi.ResourceOptions(parent=self),
            )
