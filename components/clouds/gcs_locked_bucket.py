"""A Cloud Storage bucket whose objects can't be deleted or changed for a time.

Private, with uniform access, under a retention policy. ``locked`` makes that policy
irrevocable: it can never again be shortened or removed, and the bucket can't be deleted while it
holds a younger object. https://cloud.google.com/storage/docs/bucket-lock
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.clouds.options import retain_options

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class GcsLockedBucketArgs:
    """The bucket's name and place, and how long what lies in it is locked and kept."""

    bucket: str
    location: str
    lock_days: int
    locked: bool
    keep_days: int
    protect: bool
    labels: Mapping[str, str]


class GcsLockedBucket(pulumi.ComponentResource):
    """A private bucket with a retention policy."""

    bucket: pulumi.Output[str]
    location: pulumi.Output[str]

    def __init__(
        self, name: str, args: GcsLockedBucketArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:storage:GcsLockedBucket", name, {}, opts)
        bucket = gcp.storage.Bucket(
            name,
            name=args.bucket,
            location=args.location.upper(),
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            retention_policy=gcp.storage.BucketRetentionPolicyArgs(
                retention_period=str(args.lock_days * SECONDS_A_DAY), is_locked=args.locked
            ),
            lifecycle_rules=[
                gcp.storage.BucketLifecycleRuleArgs(
                    action=gcp.storage.BucketLifecycleRuleActionArgs(type="Delete"),
                    condition=gcp.storage.BucketLifecycleRuleConditionArgs(age=args.keep_days),
                )
            ],
            force_destroy=not args.protect,
            labels=args.labels,
            opts=retain_options(self, args.protect),
        )
        self.bucket = bucket.name
        self.location = bucket.location
        self.register_outputs({"bucket": self.bucket, "location": self.location})
