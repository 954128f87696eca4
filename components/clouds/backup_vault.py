"""Where database backups lie: one locked bucket in each cloud, the key they are encrypted with, and the key
that signs their manifests.

Backups are encrypted before they leave, so neither store is trusted with their content. Nobody in the
cluster can delete: objects expire by the buckets' lifecycle, once their locks have ended. Who writes
can list names and locks, and neither read nor change; who restores can't write. Beside them there are
those who copy what one store lacks, and can't decrypt it; who adds evidence of a drill, and nothing
else; and who watches, and reads no backup.

Google Cloud's roles: https://cloud.google.com/storage/docs/access-control/iam-roles
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws
import pulumi_gcp as gcp

from components.clouds.cloud_identity import CloudIdentity
from components.clouds.gcs_locked_bucket import GcsLockedBucket, GcsLockedBucketArgs
from components.clouds.iam import Statement
from components.clouds.key_policy import DECRYPT, VERIFY, KeyUser, key_policy
from components.clouds.options import retain_options
from components.clouds.s3_locked_bucket import LIST, READ, S3LockedBucket, S3LockedBucketArgs
from components.clouds.s3_replication import S3Replication, S3ReplicationArgs


@dataclass(frozen=True)
class Replica:
    """The region and the bucket that the primary store is copied to, and the name of the role that copies."""

    region: str
    bucket: str
    role_name: str
    permissions_boundary: str | None = None


WRITE = ("s3:AbortMultipartUpload", "s3:GetObjectRetention", "s3:PutObject")
LISTER, CREATOR, VIEWER = "legacyBucketReader", "objectCreator", "objectViewer"
WRITTEN = ("backups/", "manifests/", "failures/")
COPIED = ("backups/", "manifests/")
EVIDENCE = ("drills/",)
WATCHED = ("manifests/", "drills/", "failures/")


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
    key_auditors: Sequence[str]
    key_users: Sequence[KeyUser]
    key_deletion_window_days: int
    key_context: Mapping[str, str]
    signing_key_alias: str
    signing_key_users: Sequence[KeyUser]
    protect: bool
    tags: Mapping[str, str]
    restorers: Sequence[str] = ()
    """ARNs of who restores by hand: they read the stores, open backups and verify their manifests."""
    google_restorers: Sequence[str] = ()
    """The same, as members of Google's IAM policies are written."""
    replica: Replica | None = None
    """Without one, the key goes with its region, and with it what the other cloud has."""


class BackupVault(pulumi.ComponentResource):
    """Two locked buckets and a key, and where asked for a copy of the first bucket and of the key."""

    primary: S3LockedBucket
    secondary: GcsLockedBucket
    replica: S3LockedBucket | None
    key_arn: pulumi.Output[str]
    key_alias: pulumi.Output[str]
    replica_key_arn: pulumi.Output[str] | None
    signing_key_arn: pulumi.Output[str]
    signing_key_alias: pulumi.Output[str]
    replica_signing_key_arn: pulumi.Output[str] | None

    def __init__(self, name: str, args: BackupVaultArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:storage:BackupVault", name, {}, opts)
        self._name, self._args = name, args
        child = pulumi.ResourceOptions(parent=self)
        self.primary = self._bucket(f"{name}-primary", args.primary_bucket)
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
        regions = [args.replica.region] if args.replica else []
        for member in args.google_restorers:
            who = member.replace(":", "-")
            self._member(f"restorer-{who}-{LISTER}", LISTER, member)
            self._member(f"restorer-{who}", VIEWER, member)
        administrators, auditors = args.key_administrators, args.key_auditors
        opening, verifying = (_restoring(args.restorers, actions) for actions in (DECRYPT, VERIFY))
        policy = key_policy(administrators, [*args.key_users, *opening], args.key_context, regions, auditors)
        key = aws.kms.Key(
            name,
            description="Wraps the data keys of database backups",
            # Can't be changed later, and only such a key can be copied to another region.
            multi_region=True,
            enable_key_rotation=True,
            rotation_period_in_days=365,
            deletion_window_in_days=args.key_deletion_window_days,
            policy=policy,
            tags=args.tags,
            opts=retain_options(self, args.protect),
        )
        alias = aws.kms.Alias(
            name, name=args.key_alias, target_key_id=key.key_id, opts=retain_options(self, args.protect)
        )
        self.key_arn, self.key_alias = key.arn, alias.name
        signing_policy = key_policy(
            administrators, [*args.signing_key_users, *verifying], {}, regions, auditors
        )
        signing_key = aws.kms.Key(
            f"{name}-signing",
            description="Signs the manifests of database backups",
            # KMS rotates no such key; nor need it, as nobody can take it along.
            key_usage="SIGN_VERIFY",
            customer_master_key_spec="ECC_NIST_P256",
            multi_region=True,
            deletion_window_in_days=args.key_deletion_window_days,
            policy=signing_policy,
            tags=args.tags,
            opts=retain_options(self, args.protect),
        )
        signing_alias = aws.kms.Alias(
            f"{name}-signing",
            name=args.signing_key_alias,
            target_key_id=signing_key.key_id,
            opts=retain_options(self, args.protect),
        )
        self.signing_key_arn, self.signing_key_alias = signing_key.arn, signing_alias.name
        self.replica, self.replica_key_arn, self.replica_signing_key_arn = None, None, None
        if args.replica:
            self._replicate(args.replica)
            region = args.replica.region
            self.replica_key_arn = self._replicate_key(
                "Unwraps the data keys of database backups", key, policy, f"{name}-replica", region
            )
            self.replica_signing_key_arn = self._replicate_key(
                "Verifies the manifests of database backups",
                signing_key,
                signing_policy,
                f"{name}-signing-replica",
                region,
            )
        self.register_outputs(
            {"primary": self.primary.bucket, "secondary": self.secondary.bucket, "key_arn": self.key_arn}
        )

    def _bucket(self, name: str, bucket: str, region: str | None = None) -> S3LockedBucket:
        args = self._args
        return S3LockedBucket(
            name,
            S3LockedBucketArgs(
                bucket=bucket,
                region=region,
                lock_mode=args.primary_lock_mode,
                lock_days=args.lock_days,
                keep_days=args.keep_days,
                protect=args.protect,
                tags=args.tags,
                readers=args.restorers,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _replicate(self, replica: Replica) -> None:
        child = pulumi.ResourceOptions(parent=self)
        name = f"{self._name}-replica"
        self.replica = self._bucket(name, replica.bucket, replica.region)
        S3Replication(
            name,
            S3ReplicationArgs(
                source=self.primary,
                destination=self.replica,
                role_name=replica.role_name,
                permissions_boundary=replica.permissions_boundary,
            ),
            opts=child,
        )

    def _replicate_key(
        self, use: str, key: aws.kms.Key, policy: pulumi.Output[str], name: str, region: str
    ) -> pulumi.Output[str]:
        args = self._args
        return aws.kms.ReplicaKey(
            name,
            region=region,
            primary_key_arn=key.arn,
            description=f"{use} when the primary region is lost",
            deletion_window_in_days=args.key_deletion_window_days,
            policy=policy,
            tags=args.tags,
            opts=retain_options(self, args.protect),
        ).arn

    def allow_writing(self, identity: CloudIdentity) -> None:
        """Let ``identity`` add backups and marks of failures, list names and look at locks, nothing else."""
        self._allow(identity, "write-backups", write=WRITTEN)

    def allow_drilling(self, identity: CloudIdentity) -> None:
        """Let ``identity`` list and read backups, and add evidence of drills, but no backup."""
        self._allow(identity, "read-backups", read=[""], write=EVIDENCE)

    def allow_completing(self, identity: CloudIdentity) -> None:
        """Let ``identity`` copy backups from one store to the other. It gets no key."""
        self._allow(identity, "copy-backups", read=[""], write=COPIED)

    def allow_watching(self, identity: CloudIdentity) -> None:
        """Let ``identity`` list names and read manifests, evidence and marks of failures, but no backup."""
        self._allow(identity, "watch-backups", read=WATCHED)

    def _allow(
        self, identity: CloudIdentity, policy: str, *, read: Sequence[str] = (), write: Sequence[str] = ()
    ) -> None:
        """Grant access in both stores to the keys that begin with one of the prefixes."""
        # What is copied to the replica is read there, and written by the replication alone.
        readable = [self.primary, *([self.replica] if self.replica and read else [])]
        statements = [Statement("List", LIST, [bucket.arn for bucket in readable])]
        if read:
            objects = [found for bucket in readable for found in _objects(bucket, read)]
            statements.append(Statement("Read", READ, objects))
        if write:
            statements.append(Statement("Write", WRITE, _objects(self.primary, write)))
        identity.allow(policy, statements)
        self._google(identity, LISTER, [""], suffix=f"-{LISTER}")
        self._google(identity, VIEWER, read)
        self._google(identity, CREATOR, write, suffix=f"-{CREATOR}" if read else "")

    def _google(
        self, identity: CloudIdentity, role: str, prefixes: Sequence[str], *, suffix: str = ""
    ) -> None:
        """Grant ``role`` in the secondary store, there for objects below the prefixes alone."""
        if not prefixes:
            return
        bucket = self.secondary.bucket
        names = [
            pulumi.Output.concat(
                'resource.name.startsWith("projects/_/buckets/', bucket, f'/objects/{prefix}")'
            )
            for prefix in prefixes
            if prefix
        ]
        condition = gcp.storage.BucketIAMMemberConditionArgs(
            title="Some objects only",
            expression=pulumi.Output.all(*names).apply(" || ".join),
        )
        for account, member in identity.google_members.items():
            self._member(f"{account}{suffix}", role, member, condition if names else None)

    def _member(
        self,
        name: str,
        role: str,
        member: str,
        condition: gcp.storage.BucketIAMMemberConditionArgs | None = None,
    ) -> None:
        gcp.storage.BucketIAMMember(
            f"{self._name}-{name}",
            bucket=self.secondary.bucket,
            role=f"roles/storage.{role}",
            member=member,
            condition=condition,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _restoring(restorers: Sequence[str], actions: Sequence[str]) -> list[KeyUser]:
    return [KeyUser("Restorer", list(restorers), actions)] if restorers else []


def _objects(bucket: S3LockedBucket, prefixes: Sequence[str]) -> list[pulumi.Output[str]]:
    return [pulumi.Output.concat(bucket.arn, f"/{prefix}*") for prefix in prefixes]
