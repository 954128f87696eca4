"""AWS S3: everything that is set on a bucket, each a resource whose id is the bucket's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError

from sandbox.providers.aws.clients import AwsType, error_code, unless_gone
from sandbox.providers.aws.shapes import from_api, to_api
from sandbox.providers.rules import at, each, one_of
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_RENAMED = {"sseAlgorithm": "SSEAlgorithm", "kmsMasterKeyId": "KMSMasterKeyID", "id": "ID"}


class _Setting(AwsType):
    """One setting: how it is put, read and taken away, and what the API says where it is not set."""

    service = "s3"
    immutable = ("bucket", "region", "expectedBucketOwner")
    unsupported = ("expectedBucketOwner",)
    unset: str

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        raise NotImplementedError

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        raise NotImplementedError

    def remove(self, client: Any, bucket: str) -> None:
        raise NotImplementedError

    def create(self, inputs: Properties) -> str:
        """The bucket's name is the setting's id."""
        self.put(self.client(inputs), inputs["bucket"], inputs)
        return inputs["bucket"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Gone with its bucket, or taken away by hand."""
        client = self.client(known)
        try:
            found = self.get(client, resource_id, known)
        except ClientError as error:
            if error_code(error) in {"NoSuchBucket", "404", self.unset}:
                return None
            raise
        region = known.get("region") or client.meta.region_name
        return None if found is None else {"bucket": resource_id, "region": region, **found}

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Every one of them is put whole."""
        self.put(self.client(new), resource_id, new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """Nothing to do where the bucket is gone."""
        with unless_gone("NoSuchBucket", self.unset):
            self.remove(self.client(known), resource_id)

    def find(self, inputs: Properties) -> str | None:
        """Each is put whole, so a half-made one is simply made again."""
        return None


class Versioning(_Setting):
    """Can be suspended, never unset."""

    type_name = "aws:s3/bucketVersioning:BucketVersioning"
    unsupported = ("mfa", "expectedBucketOwner")
    unset = ""

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The API's words."""
        yield from one_of(inputs, "versioningConfiguration.status", ("Enabled", "Suspended", "Disabled"))
        yield from one_of(inputs, "versioningConfiguration.mfaDelete", ("Enabled", "Disabled"))

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        if inputs["versioningConfiguration"]["status"] != "Disabled":
            configuration = to_api({"status": inputs["versioningConfiguration"]["status"]})
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=configuration)

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        status = client.get_bucket_versioning(Bucket=bucket).get("Status")
        asked = at(known, "versioningConfiguration.status")
        if status is None and asked != "Disabled":
            return None
        before = known.get("versioningConfiguration") or {}
        return {"versioningConfiguration": {**before, "status": status or "Disabled"}}

    def remove(self, client: Any, bucket: str) -> None:
        # S3 refuses to suspend versioning under object lock, and moto would not; it goes with the bucket.
        with unless_gone("ObjectLockConfigurationNotFoundError"):
            client.get_object_lock_configuration(Bucket=bucket)
            return
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


class Encryption(_Setting):
    """Default encryption."""

    type_name = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    unset = "ServerSideEncryptionConfigurationNotFoundError"

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The API's words."""
        path = "applyServerSideEncryptionByDefault.sseAlgorithm"
        yield from each(
            inputs, "rules", lambda rule: one_of(rule, path, ("AES256", "aws:kms", "aws:kms:dsse"))
        )

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        rules = to_api(inputs["rules"], _RENAMED)
        client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        found = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        rules = from_api(found, _RENAMED)
        # S3 answers False where a program says nothing of it.
        before = known.get("rules") or []
        for index, rule in enumerate(rules):
            if rule.get("bucketKeyEnabled") is False and (
                index >= len(before) or before[index].get("bucketKeyEnabled") is None
            ):
                del rule["bucketKeyEnabled"]
        return {"rules": rules}

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_bucket_encryption(Bucket=bucket)


class ObjectLock(_Setting):
    """Default retention of a bucket that was created with object lock."""

    type_name = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
    unset = "ObjectLockConfigurationNotFoundError"
    defaults = {"objectLockEnabled": "Enabled"}
    unsupported = ("expectedBucketOwner", "token")
    immutable = ("bucket", "region", "expectedBucketOwner", "objectLockEnabled")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """One mode and one of days and years."""
        yield from one_of(inputs, "objectLockEnabled", ("Enabled",))
        yield from one_of(inputs, "rule.defaultRetention.mode", ("COMPLIANCE", "GOVERNANCE"))
        retention = at(inputs, "rule.defaultRetention")
        if isinstance(retention, dict):
            given = [name for name in ("days", "years") if retention.get(name) is not None]
            if len(given) != 1:
                yield Failure("rule.defaultRetention", "takes exactly one of days and years")
            for name in given:
                if isinstance(retention[name], int) and retention[name] < 1:
                    yield Failure(
                        f"rule.defaultRetention.{name}", f"must be at least 1, and is {retention[name]}"
                    )

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        configuration = to_api({k: inputs[k] for k in ("objectLockEnabled", "rule") if k in inputs})
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        found = from_api(client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"])
        if retention := at(found, "rule.defaultRetention"):
            # moto answers 0 for the one of days and years that is not set.
            found["rule"]["defaultRetention"] = {k: v for k, v in retention.items() if v}
        return {"objectLockEnabled": found.get("objectLockEnabled"), "rule": found.get("rule")}

    def remove(self, client: Any, bucket: str) -> None:
        # Object lock can't be switched off, so what goes is the default retention.
        enabled = {"ObjectLockEnabled": "Enabled"}
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=enabled)


class PublicAccessBlock(_Setting):
    """What keeps a bucket from being made public."""

    type_name = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    unset = "NoSuchPublicAccessBlockConfiguration"
    unsupported = ("skipDestroy",)
    immutable = ("bucket", "region")
    defaults = {
        "blockPublicAcls": False,
        "blockPublicPolicy": False,
        "ignorePublicAcls": False,
        "restrictPublicBuckets": False,
    }

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        configuration = to_api({name: inputs[name] for name in self.defaults})
        client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=configuration)

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        return from_api(client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"])

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_public_access_block(Bucket=bucket)


class Policy(_Setting):
    """Who may do what with the bucket."""

    type_name = "aws:s3/bucketPolicy:BucketPolicy"
    unset = "NoSuchBucketPolicy"
    immutable = ("bucket", "region")
    documents = ("policy",)

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        client.put_bucket_policy(Bucket=bucket, Policy=inputs["policy"])

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        return {"policy": client.get_bucket_policy(Bucket=bucket)["Policy"]}

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_bucket_policy(Bucket=bucket)


class OwnershipControls(_Setting):
    """Who owns what others upload."""

    type_name = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
    unset = "OwnershipControlsNotFoundError"
    immutable = ("bucket", "region")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The API's words."""
        yield from one_of(
            inputs, "rule.objectOwnership", ("BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced")
        )

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        controls = {"Rules": [to_api(inputs["rule"])]}
        client.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        rules = client.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        return {"rule": from_api(rules[0])}

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_bucket_ownership_controls(Bucket=bucket)


class Lifecycle(_Setting):
    """When objects and their versions expire or move to another storage class."""

    type_name = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    unset = "NoSuchLifecycleConfiguration"
    unsupported = ("expectedBucketOwner", "transitionDefaultMinimumObjectSize")
    server_chosen = ("region", "transitionDefaultMinimumObjectSize")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Each rule does something, and is on or off."""
        yield from each(inputs, "rules", lambda rule: one_of(rule, "status", ("Enabled", "Disabled")))

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        rules = [_to_rule(rule) for rule in inputs.get("rules") or ()]
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        found = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        before = known.get("rules") or []
        rules = [_from_rule(rule, before[i] if i < len(before) else {}) for i, rule in enumerate(found)]
        return {"rules": rules}

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_bucket_lifecycle(Bucket=bucket)


class Replication(_Setting):
    """What is copied to which bucket. moto keeps the configuration and copies nothing."""

    type_name = "aws:s3/bucketReplicationConfig:BucketReplicationConfig"
    immutable = ("bucket", "region")
    unsupported = ("token",)
    unset = "ReplicationConfigurationNotFoundError"

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Each rule is on or off."""
        yield from each(inputs, "rules", lambda rule: one_of(rule, "status", ("Enabled", "Disabled")))

    def put(self, client: Any, bucket: str, inputs: Properties) -> None:
        configuration = {
            "Role": inputs["role"],
            "Rules": [to_api(rule, _RENAMED) for rule in inputs["rules"]],
        }
        client.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=configuration)

    def get(self, client: Any, bucket: str, known: Properties) -> Properties | None:
        found = client.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]
        before = known.get("rules") or []
        rules: list[Properties] = []
        for index, rule in enumerate(found["Rules"]):
            read = from_api(rule, _RENAMED)
            asked = before[index] if index < len(before) else {}
            # moto leaves out an empty filter, and keeps numbers as words.
            if "filter" in asked and asked["filter"] in ({}, {"prefix": ""}):
                read["filter"] = asked["filter"]
            if "priority" in read:
                read["priority"] = int(read["priority"])
            rules.append(read)
        return {"role": found["Role"], "rules": rules}

    def remove(self, client: Any, bucket: str) -> None:
        client.delete_bucket_replication(Bucket=bucket)


def _to_rule(rule: Properties) -> dict[str, Any]:
    made = to_api(rule, _RENAMED)
    condition = made.setdefault("Filter", {})
    if "And" in condition and "Tags" in condition["And"]:
        condition["And"]["Tags"] = [{"Key": k, "Value": v} for k, v in rule["filter"]["and"]["tags"].items()]
    if not condition:
        made["Filter"] = {"Prefix": rule.get("prefix", "")}
    made.pop("Prefix", None)
    return made


def _from_rule(rule: dict[str, Any], before: Properties) -> Properties:
    read = from_api(rule, _RENAMED)
    if tags := at(read, "filter.and.tags"):
        read["filter"]["and"]["tags"] = {tag["key"]: tag["value"] for tag in tags}
    # An empty filter and none mean the same to S3, which answers an empty prefix to both.
    if read.get("filter") in ({}, {"prefix": ""}):
        read.pop("filter")
        if "filter" in before:
            read["filter"] = before["filter"]
    if "prefix" in before:
        read["prefix"] = before["prefix"]
    return read


SETTINGS = (
    Versioning(),
    Encryption(),
    ObjectLock(),
    PublicAccessBlock(),
    Policy(),
    OwnershipControls(),
    Lifecycle(),
    Replication(),
)
