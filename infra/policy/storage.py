"""Buckets: locked, versioned, encrypted, private, reached over TLS only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from infra.policy.rule import Resource, Rule, StackRule

S3_BUCKET = "aws:s3/bucket:Bucket"
SERVER_SIDE_ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
GCS_BUCKET = "gcp:storage/bucket:Bucket"

COMPANIONS = {
    "aws:s3/bucketVersioning:BucketVersioning": "versioning",
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": "a default object lock",
    SERVER_SIDE_ENCRYPTION: "default encryption",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "a public access block",
    "aws:s3/bucketPolicy:BucketPolicy": "a bucket policy that refuses requests without TLS",
}
"""Since provider version 7 each of these is a resource of its own, so that one can be forgotten."""


def _s3_bucket_is_complete(resources: Sequence[Resource]) -> Iterator[tuple[str, str]]:
    for bucket in resources:
        if bucket.type != S3_BUCKET:
            continue
        present = {
            resource.type for resource in resources if bucket.urn in resource.dependencies.get("bucket", ())
        }
        for companion, what in COMPANIONS.items():
            if companion not in present:
                yield (
                    bucket.urn,
                    f"bucket has no {what.removeprefix('a ')}; add {companion.rpartition(':')[2]} to it",
                )


def _s3_object_lock(resource: Resource) -> Iterator[str]:
    if not resource.properties.get("objectLockEnabled"):
        yield "object lock is off, and hard to turn on later; set object_lock_enabled=True"


def _public_access_block(resource: Resource) -> Iterator[str]:
    for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
        if resource.properties.get(name) is not True:
            yield f"{name} is not set, so that objects can become public; set all four to True"


def _tls_only(resource: Resource) -> Iterator[str]:
    document = json.loads(resource.properties["policy"])
    for statement in document["Statement"]:
        transport = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
        if statement["Effect"] == "Deny" and str(transport).lower() == "false":
            return
    yield "requests without TLS are allowed; deny s3:* where aws:SecureTransport is false"


def _gcs_bucket(resource: Resource) -> Iterator[str]:
    if not resource.properties.get("uniformBucketLevelAccess"):
        yield "object ACLs can open single objects; set uniform_bucket_level_access=True"
    if resource.properties.get("publicAccessPrevention") != "enforced":
        yield "objects can become public; set public_access_prevention='enforced'"
    if not (resource.properties.get("retentionPolicy") or {}).get("retentionPeriod"):
        yield "objects can be deleted at once; set a retention_policy"


RULES = (
    Rule("s3-object-lock", "S3 buckets are made with object lock.", frozenset({S3_BUCKET}), _s3_object_lock),
    Rule(
        "s3-public-access",
        "S3 buckets block public access in all four ways.",
        frozenset({"aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"}),
        _public_access_block,
    ),
    Rule(
        "s3-tls-only",
        "S3 buckets refuse requests without TLS.",
        frozenset({"aws:s3/bucketPolicy:BucketPolicy"}),
        _tls_only,
    ),
    Rule(
        "gcs-bucket", "Cloud Storage buckets are private and retained.", frozenset({GCS_BUCKET}), _gcs_bucket
    ),
)
STACK_RULES = (
    StackRule(
        "s3-bucket-complete",
        "Every S3 bucket is versioned, locked, encrypted, private and reached over TLS only.",
        _s3_bucket_is_complete,
    ),
)
