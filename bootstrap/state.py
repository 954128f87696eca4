"""Where the engine keeps a stage's state: a bucket and the key that encrypts it and the secrets in it.

Every state stays as a version for a while, so that one that was broken can be had back. The account's own
administrators look after the key and can't use it; the deployer uses it, and who previews or looks for drift
reads by it.
https://www.pulumi.com/docs/iac/concepts/state-and-backends/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.clouds.iam import policy_json
from components.clouds.key_policy import KeyUser, key_policy
from components.clouds.options import retain_options
from components.clouds.private_bucket import keep_private

WRITE = ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey")
READ = ("kms:Decrypt",)


@dataclass(frozen=True)
class StateStoreArgs:
    """The bucket, the key's alias, and who writes and reads."""

    bucket: str
    alias: str
    account_id: str
    deployer_arn: pulumi.Input[str]
    preview_arn: pulumi.Input[str]
    drift_arn: pulumi.Input[str]
    keep_days: int
    """How long a state that was replaced is kept."""
    tags: Mapping[str, str]
    protect: bool = True


class StateStore(pulumi.ComponentResource):
    """A private, versioned bucket, encrypted under a key of its own."""

    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: StateStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:bootstrap:StateStore", name, {}, opts)
        kept = retain_options(self, args.protect)
        key = aws.kms.Key(
            name,
            description="Encrypts the engine's state and the secrets in it",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=key_policy(
                [f"arn:aws:iam::{args.account_id}:root"],
                [
                    KeyUser("Deployer", args.deployer_arn, WRITE),
                    KeyUser("Preview", args.preview_arn, READ),
                    KeyUser("Drift", args.drift_arn, READ),
                ],
                {},
            ),
            tags=args.tags,
            opts=kept,
        )
        aws.kms.Alias(name, name=args.alias, target_key_id=key.key_id, opts=kept)
        bucket = aws.s3.Bucket(
            name, bucket=args.bucket, force_destroy=not args.protect, tags=args.tags, opts=kept
        )
        versioning = aws.s3.BucketVersioning(
            name,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=kept,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="aws:kms", kms_master_key_id=key.arn
                    ),
                    bucket_key_enabled=True,
                )
            ],
            opts=kept,
        )
        keep_private(name, bucket, _only_in_tls(bucket.arn), kept)
        aws.s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="former-states",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                        noncurrent_days=args.keep_days
                    ),
                )
            ],
            opts=pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[versioning])),
        )
        self.bucket = bucket.bucket
        self.register_outputs({"bucket": self.bucket})


def _only_in_tls(arn: pulumi.Output[str]) -> pulumi.Output[str]:
    return policy_json(
        [
            {
                "Sid": "DenyWithoutTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, pulumi.Output.concat(arn, "/*")],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ]
    )
