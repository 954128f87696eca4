"""An S3 bucket whose objects can't be deleted or changed for a time.

Every new object is locked by default, private, encrypted, versioned, and reachable over TLS only.
Lock mode ``compliance`` can't be lifted by anybody before its time; ``governance`` by those with a
special permission. Nobody can put a version on top of an object, nor lock anything for longer than the
bucket does, which in compliance mode would be a bill that nobody can stop. Versions expire after
``keep_days``, which object lock holds back while a lock lasts. Who reads it without a role of the platform's
is named in its policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from components.clouds.iam import policy_json
from components.clouds.options import retain_options
from components.clouds.private_bucket import keep_private

LIST = ("s3:GetBucketObjectLockConfiguration", "s3:ListBucketVersions")
READ = ("s3:GetObjectRetention", "s3:GetObjectVersion")


@dataclass(frozen=True)
class S3LockedBucketArgs:
    """The bucket's name, and how long what lies in it is locked and kept."""

    bucket: str
    lock_mode: Literal["governance", "compliance"]
    lock_days: int
    keep_days: int | None
    """Objects expire after so many days; ``None`` keeps them for ever."""
    protect: bool
    tags: Mapping[str, str]
    region: str | None = None
    """Another than the provider's."""
    readers: Sequence[str] = ()
    """ARNs of who lists and reads every version, and no more."""


class S3LockedBucket(pulumi.ComponentResource):
    """A private, versioned, encrypted bucket with object lock."""

    bucket: pulumi.Output[str]
    arn: pulumi.Output[str]
    location: pulumi.Output[str]

    def __init__(
        self, name: str, args: S3LockedBucketArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:storage:S3LockedBucket", name, {}, opts)
        kept = retain_options(self, args.protect)
        bucket = aws.s3.Bucket(
            name,
            bucket=args.bucket,
            region=args.region,
            object_lock_enabled=True,
            force_destroy=not args.protect,
            tags=args.tags,
            opts=kept,
        )
        versioning = aws.s3.BucketVersioning(
            name,
            bucket=bucket.bucket,
            region=args.region,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=kept,
        )
        # S3 takes a lock configuration only from a versioned bucket.
        after_versioning = pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[versioning]))
        aws.s3.BucketObjectLockConfiguration(
            name,
            bucket=bucket.bucket,
            region=args.region,
            rule=aws.s3.BucketObjectLockConfigurationRuleArgs(
                default_retention=aws.s3.BucketObjectLockConfigurationRuleDefaultRetentionArgs(
                    mode=args.lock_mode.upper(), days=args.lock_days
                )
            ),
            opts=after_versioning,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            region=args.region,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="AES256"
                    )
                )
            ],
            opts=kept,
        )
        keep_private(name, bucket, _policy(bucket.arn, args.lock_days, args.readers), kept, args.region)
        if args.keep_days is not None:
            aws.s3.BucketLifecycleConfiguration(
                name,
                bucket=bucket.bucket,
                region=args.region,
                rules=_expire(args.keep_days),
                opts=after_versioning,
            )
        self.bucket = bucket.bucket
        self.arn = bucket.arn
        self.location = bucket.region
        self.register_outputs({"bucket": self.bucket, "arn": self.arn})


def _policy(arn: pulumi.Output[str], lock_days: int, readers: Sequence[str]) -> pulumi.Output[str]:
    """What nobody may do here, whatever else they may; and who reads.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html
    """
    objects = pulumi.Output.concat(arn, "/*")
    deny = {"Effect": "Deny", "Principal": "*"}
    return policy_json(
        [
            {
                "Sid": "DenyWithoutTls",
                **deny,
                "Action": "s3:*",
                "Resource": [arn, objects],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
            {
                "Sid": "DenyOverwriting",
                **deny,
                "Action": ["s3:PutObject"],
                "Resource": [objects],
                # Parts of an upload carry no condition; what makes the object appear does.
                "Condition": {
                    "Null": {"s3:if-none-match": "true"},
                    "Bool": {"s3:ObjectCreationOperation": "true"},
                },
            },
            {
                "Sid": "DenyLongerLocks",
                **deny,
                "Action": ["s3:PutObject", "s3:PutObjectRetention"],
                "Resource": [objects],
                "Condition": {
                    "NumericGreaterThan": {"s3:object-lock-remaining-retention-days": str(lock_days + 1)}
                },
            },
            *_reading(arn, objects, readers),
        ]
    )


def _reading(
    arn: pulumi.Output[str], objects: pulumi.Output[str], readers: Sequence[str]
) -> list[dict[str, Any]]:
    if not readers:
        return []
    allow = {"Effect": "Allow", "Principal": {"AWS": list(readers)}}
    return [
        {"Sid": "ReadersList", **allow, "Action": list(LIST), "Resource": [arn]},
        {"Sid": "ReadersRead", **allow, "Action": list(READ), "Resource": [objects]},
    ]


def _expire(keep_days: int) -> list[aws.s3.BucketLifecycleConfigurationRuleArgs]:
    return [
        aws.s3.BucketLifecycleConfigurationRuleArgs(
            id="expire",
            status="Enabled",
            filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
            expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=keep_days),
            noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                noncurrent_days=1
            ),
            abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                days_after_initiation=1
            ),
        )
    ]
