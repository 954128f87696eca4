"""AWS Secrets Manager: secrets and their values."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from sandbox.providers.aws.clients import AwsType, tag_changes, tag_list, tag_outputs, unless_gone
from sandbox.providers.base import Autoname
from sandbox.providers.rules import matches
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_GONE = ("ResourceNotFoundException",)


class Secret(AwsType):
    """A secret's name, key and recovery window; its value is a :class:`Version`."""

    type_name = "aws:secretsmanager/secret:Secret"
    service = "secretsmanager"
    tagged = True
    immutable = ("name", "namePrefix", "region")
    autoname = Autoname(maximum=512)
    defaults = {"forceOverwriteReplicaSecret": False, "recoveryWindowInDays": 30}
    server_chosen = ("region", "tagsAll", "namePrefix", "policy", "replicas", "type")
    unsupported = ("policy", "replicas", "type")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The API's ranges."""
        words = "1 to 512 letters, digits and any of /_+=.@-"
        yield from matches(inputs, "name", r"[\w/+=.@-]{1,512}", words)
        window = inputs["recoveryWindowInDays"]
        if isinstance(window, int) and window != 0 and not 7 <= window <= 30:
            yield Failure("recoveryWindowInDays", f"must be 0 or from 7 to 30, and is {window}")

    def create(self, inputs: Properties) -> str:
        """The secret's ARN is its id."""
        arguments = {
            "Name": inputs["name"],
            "Description": inputs.get("description"),
            "KmsKeyId": inputs.get("kmsKeyId"),
            "Tags": tag_list(inputs),
        }
        return self.client(inputs).create_secret(**{k: v for k, v in arguments.items() if v is not None})[
            "ARN"
        ]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """One whose deletion is scheduled counts as gone."""
        client = self.client(known)
        with unless_gone(*_GONE):
            found = client.describe_secret(SecretId=resource_id)
            if found.get("DeletedDate"):
                return None
            tags = {t["Key"]: t["Value"] for t in found.get("Tags") or ()}
            return {
                "arn": found["ARN"],
                "name": found["Name"],
                "description": found.get("Description") or None,
                "kmsKeyId": found.get("KmsKeyId"),
                "region": client.meta.region_name,
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Only what changed is called for."""
        client = self.client(new)
        if any(new.get(name) != old.get(name) for name in ("description", "kmsKeyId")):
            key = {"KmsKeyId": new["kmsKeyId"]} if new.get("kmsKeyId") else {}
            client.update_secret(SecretId=resource_id, Description=new.get("description") or "", **key)
        put, removed = tag_changes(old, new)
        if put:
            tags = [{"Key": key, "Value": value} for key, value in put.items()]
            client.tag_resource(SecretId=resource_id, Tags=tags)
        if removed:
            client.untag_resource(SecretId=resource_id, TagKeys=removed)

    def delete(self, resource_id: str, known: Properties) -> None:
        """At once when the recovery window is 0."""
        days = known.get("recoveryWindowInDays", 30)
        how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
        with unless_gone(*_GONE, "InvalidRequestException"):
            self.client(known).delete_secret(SecretId=resource_id, **how)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        found = self.read(inputs["name"], inputs)
        return found["arn"] if found else None


class Version(AwsType):
    """A secret's value."""

    type_name = "aws:secretsmanager/secretVersion:SecretVersion"
    service = "secretsmanager"
    immutable = ("secretId", "secretString", "secretBinary", "region")
    secret_outputs = ("secretString", "secretBinary")
    server_chosen = ("region", "versionStages")
    unsupported = ("secretStringWo", "secretStringWoVersion", "versionStages")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """One value."""
        if (inputs.get("secretString") is None) == (inputs.get("secretBinary") is None):
            yield Failure("secretString", "a version has exactly one of secretString and secretBinary")

    def create(self, inputs: Properties) -> str:
        """``secret|version``, as the official provider joins them."""
        value = (
            {"SecretString": inputs["secretString"]}
            if "secretString" in inputs
            else {"SecretBinary": base64.b64decode(inputs["secretBinary"])}
        )
        answer = self.client(inputs).put_secret_value(SecretId=inputs["secretId"], **value)
        return f"{inputs['secretId']}|{answer['VersionId']}"

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """By its own version id, whatever is current."""
        secret_id, _, version = resource_id.partition("|")
        client = self.client(known)
        with unless_gone(*_GONE, "InvalidRequestException"):
            found = client.get_secret_value(SecretId=secret_id, VersionId=version)
            binary = found.get("SecretBinary")
            return {
                "arn": found["ARN"],
                "secretArn": found["ARN"],
                "secretId": secret_id,
                "secretString": found.get("SecretString"),
                "secretBinary": base64.b64encode(binary).decode() if binary else None,
                "versionId": version,
                "versionStages": found.get("VersionStages"),
                "region": client.meta.region_name,
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Every change is a new version."""

    def delete(self, resource_id: str, known: Properties) -> None:
        """Secrets Manager deletes no version: it goes once nothing is staged on it, or with its secret."""


TYPES = (Secret(), Version())
