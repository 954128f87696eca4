"""AWS S3: buckets. What a bucket is set up with lies in :mod:`sandbox.providers.aws.s3_settings`."""

from __future__ import annotations

from collections.abc import Iterable

from botocore.exceptions import ClientError

from sandbox.providers.aws.clients import AwsType, all_tags, error_code, tag_list, tag_outputs, unless_gone
from sandbox.providers.aws.s3_settings import SETTINGS
from sandbox.providers.base import Autoname
from sandbox.providers.rules import matches
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

# Version 7 of the official provider keeps these for old programs and points to a resource for each.
_OUTGROWN = {
    "accelerationStatus": "BucketAccelerateConfiguration",
    "acl": "BucketAcl",
    "corsRules": "BucketCorsConfiguration",
    "grants": "BucketAcl",
    "lifecycleRules": "BucketLifecycleConfiguration",
    "logging": "BucketLogging",
    "objectLockConfiguration": "BucketObjectLockConfiguration",
    "policy": "BucketPolicy",
    "replicationConfiguration": "BucketReplicationConfig",
    "requestPayer": "BucketRequestPaymentConfiguration",
    "serverSideEncryptionConfiguration": "BucketServerSideEncryptionConfiguration",
    "versioning": "BucketVersioning",
    "website": "BucketWebsiteConfiguration",
}


class Bucket(AwsType):
    """A bucket; its settings are resources of their own."""

    type_name = "aws:s3/bucket:Bucket"
    service = "s3"
    tagged = True
    immutable = ("bucket", "bucketPrefix", "bucketNamespace", "objectLockEnabled", "region")
    autoname = Autoname(property="bucket", maximum=63, lower=True)
    defaults = {"forceDestroy": False}
    server_chosen = ("region", "tagsAll", "objectLockEnabled", "bucketPrefix", *_OUTGROWN)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Naming rules of S3, and one way to say each setting."""
        yield from matches(
            inputs,
            "bucket",
            r"(?!xn--|sthree-)[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9](?<!-s3alias)",
            "3 to 63 lower-case letters, digits, hyphens and dots",
        )
        for name, resource in _OUTGROWN.items():
            if inputs.get(name) is not None:
                yield Failure(name, f"the sandbox takes this as a resource of its own: aws.s3.{resource}")

    def create(self, inputs: Properties) -> str:
        """The bucket's name is its id."""
        client = self.client(inputs)
        name: str = inputs["bucket"]
        place = {"LocationConstraint": client.meta.region_name}
        client.create_bucket(
            Bucket=name,
            ObjectLockEnabledForBucket=bool(inputs.get("objectLockEnabled")),
            **({} if client.meta.region_name == "us-east-1" else {"CreateBucketConfiguration": place}),
        )
        if tags := tag_list(inputs):
            client.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
        return name

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """The bucket's own properties."""
        client = self.client(known)
        try:
            client.head_bucket(Bucket=resource_id)
        except ClientError as error:
            if error_code(error) in {"404", "NoSuchBucket"}:
                return None
            raise
        tags: dict[str, str] = {}
        with unless_gone("NoSuchTagSet"):
            tags = {t["Key"]: t["Value"] for t in client.get_bucket_tagging(Bucket=resource_id)["TagSet"]}
        locked = False
        with unless_gone("ObjectLockConfigurationNotFoundError"):
            lock = client.get_object_lock_configuration(Bucket=resource_id)["ObjectLockConfiguration"]
            locked = lock.get("ObjectLockEnabled") == "Enabled"
        region = client.meta.region_name
        return {
            "arn": f"arn:aws:s3:::{resource_id}",
            "bucket": resource_id,
            "bucketDomainName": f"{resource_id}.s3.amazonaws.com",
            "bucketRegion": region,
            "bucketRegionalDomainName": f"{resource_id}.s3.{region}.amazonaws.com",
            "objectLockEnabled": locked,
            "region": region,
            **tag_outputs(tags, known),
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Tags are all that changes in place."""
        if all_tags(new) != (old.get("tagsAll") or {}):
            client = self.client(new)
            if tags := tag_list(new):
                client.put_bucket_tagging(Bucket=resource_id, Tagging={"TagSet": tags})
            else:
                client.delete_bucket_tagging(Bucket=resource_id)

    def delete(self, resource_id: str, known: Properties) -> None:
        """Empties it first when ``forceDestroy`` says so; retained objects make that fail, as in S3."""
        client = self.client(known)
        with unless_gone("NoSuchBucket"):
            if known.get("forceDestroy"):
                for page in client.get_paginator("list_object_versions").paginate(Bucket=resource_id):
                    for version in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                        client.delete_object(
                            Bucket=resource_id,
                            Key=version["Key"],
                            VersionId=version["VersionId"],
                            BypassGovernanceRetention=True,
                        )
            client.delete_bucket(Bucket=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        return inputs["bucket"] if self.read(inputs["bucket"], inputs) else None


TYPES = (Bucket(), *SETTINGS)
