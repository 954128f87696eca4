"""What keeps a bucket of S3 to those whom its policy lets in: no lists of access, nothing public."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws


def keep_private(
    name: str,
    bucket: aws.s3.Bucket,
    policy: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
    region: str | None = None,
) -> None:
    """Give ``bucket`` its ``policy`` and take every other way to it.

    Args:
        name: of the resources in the state.
        bucket: which one.
        policy: JSON.
        opts: of every resource.
        region: where the bucket is, if not where the provider works.
    """
    aws.s3.BucketOwnershipControls(
        name,
        bucket=bucket.bucket,
        region=region,
        rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
        opts=opts,
    )
    block = aws.s3.BucketPublicAccessBlock(
        name,
        bucket=bucket.bucket,
        region=region,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=opts,
    )
    aws.s3.BucketPolicy(
        name,
        bucket=bucket.bucket,
        region=region,
        policy=policy,
        # Both change the bucket's access; S3 answers 409 when they meet.
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[block])),
    )
