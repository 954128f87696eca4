"""AWS ECR: repositories, their lifecycle and access policies, and the registry's scanning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandbox.providers.aws.clients import AwsType, tag_changes, tag_list, tag_outputs, unless_gone
from sandbox.providers.aws.shapes import from_api
from sandbox.providers.base import Autoname
from sandbox.providers.rules import each, matches, one_of
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_GONE = (
    "RepositoryNotFoundException",
    "LifecyclePolicyNotFoundException",
    "RepositoryPolicyNotFoundException",
)


class Repository(AwsType):
    """A repository of images."""

    type_name = "aws:ecr/repository:Repository"
    service = "ecr"
    tagged = True
    immutable = ("name", "region", "encryptionConfigurations")
    autoname = Autoname(maximum=256, lower=True)
    defaults = {"imageTagMutability": "MUTABLE"}
    server_chosen = ("region", "tagsAll", "encryptionConfigurations", "imageScanningConfiguration")
    unsupported = ("imageTagMutabilityExclusionFilters",)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """ECR's naming rule and words."""
        words = "2 to 256 lower-case letters, digits and single separators"
        part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
        yield from matches(inputs, "name", rf"(?=.{{2,256}}$){part}(/{part})*", words)
        yield from one_of(inputs, "imageTagMutability", ("MUTABLE", "IMMUTABLE"))
        types = ("AES256", "KMS", "KMS_DSSE")
        yield from each(inputs, "encryptionConfigurations", lambda one: one_of(one, "encryptionType", types))

    def create(self, inputs: Properties) -> str:
        """The repository's name is its id."""
        arguments: dict[str, Any] = {
            "repositoryName": inputs["name"],
            "imageTagMutability": inputs["imageTagMutability"],
            "tags": tag_list(inputs),
        }
        if scanning := inputs.get("imageScanningConfiguration"):
            arguments["imageScanningConfiguration"] = scanning
        if encryption := inputs.get("encryptionConfigurations"):
            arguments["encryptionConfiguration"] = _to_encryption(encryption[0])
        self.client(inputs).create_repository(**arguments)
        return inputs["name"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Live, but for how long a delete would wait."""
        ecr = self.client(known)
        with unless_gone(*_GONE):
            found = ecr.describe_repositories(repositoryNames=[resource_id])["repositories"][0]
            live_tags = ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
            tags = {tag["Key"]: tag["Value"] for tag in live_tags}
            encryption = dict(found.get("encryptionConfiguration") or {"encryptionType": "AES256"})
            before = known.get("encryptionConfigurations")
            if before and not before[0].get("kmsKey"):
                # ECR chose the key; that is no drift.
                encryption.pop("kmsKey", None)
            return {
                "name": resource_id,
                "arn": found["repositoryArn"],
                "registryId": found["registryId"],
                "repositoryUrl": found["repositoryUri"],
                "imageTagMutability": found["imageTagMutability"],
                "imageScanningConfiguration": found.get("imageScanningConfiguration"),
                "encryptionConfigurations": [encryption],
                "region": ecr.meta.region_name,
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Only what changed is called for."""
        ecr = self.client(new)
        if new["imageTagMutability"] != old.get("imageTagMutability"):
            mutability = new["imageTagMutability"]
            ecr.put_image_tag_mutability(repositoryName=resource_id, imageTagMutability=mutability)
        scanning = new.get("imageScanningConfiguration") or {"scanOnPush": False}
        if scanning != old.get("imageScanningConfiguration"):
            ecr.put_image_scanning_configuration(
                repositoryName=resource_id, imageScanningConfiguration=scanning
            )
        put, removed = tag_changes(old, new)
        if put:
            tags = [{"Key": key, "Value": value} for key, value in put.items()]
            ecr.tag_resource(resourceArn=old["arn"], tags=tags)
        if removed:
            ecr.untag_resource(resourceArn=old["arn"], tagKeys=removed)

    def delete(self, resource_id: str, known: Properties) -> None:
        """With its images only when ``forceDelete`` says so."""
        with unless_gone(*_GONE):
            force = bool(known.get("forceDelete"))
            self.client(known).delete_repository(repositoryName=resource_id, force=force)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        return inputs["name"] if self.read(inputs["name"], inputs) else None


def _to_encryption(given: Properties) -> Properties:
    return {"encryptionType": given.get("encryptionType") or "AES256"} | (
        {"kmsKey": given["kmsKey"]} if given.get("kmsKey") else {}
    )


class LifecyclePolicy(AwsType):
    """Which images expire."""

    type_name = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
    service = "ecr"
    immutable = ("repository", "region")
    documents = ("policy",)
    server_chosen = ("region",)

    def create(self, inputs: Properties) -> str:
        """The repository's name is its id."""
        self.update(inputs["repository"], {}, inputs)
        return inputs["repository"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """As the registry has it."""
        ecr = self.client(known)
        with unless_gone(*_GONE):
            found = ecr.get_lifecycle_policy(repositoryName=resource_id)
            return {
                "repository": resource_id,
                "policy": found["lifecyclePolicyText"],
                "registryId": found["registryId"],
                "region": ecr.meta.region_name,
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.client(new).put_lifecycle_policy(repositoryName=resource_id, lifecyclePolicyText=new["policy"])

    def delete(self, resource_id: str, known: Properties) -> None:
        """The images stay."""
        with unless_gone(*_GONE):
            self.client(known).delete_lifecycle_policy(repositoryName=resource_id)


class RepositoryPolicy(AwsType):
    """Who may pull and push."""

    type_name = "aws:ecr/repositoryPolicy:RepositoryPolicy"
    service = "ecr"
    immutable = ("repository", "region")
    documents = ("policy",)
    server_chosen = ("region",)

    def create(self, inputs: Properties) -> str:
        """The repository's name is its id."""
        self.update(inputs["repository"], {}, inputs)
        return inputs["repository"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """As the registry has it."""
        ecr = self.client(known)
        with unless_gone(*_GONE):
            found = ecr.get_repository_policy(repositoryName=resource_id)
            return {
                "repository": resource_id,
                "policy": found["policyText"],
                "registryId": found["registryId"],
                "region": ecr.meta.region_name,
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.client(new).set_repository_policy(repositoryName=resource_id, policyText=new["policy"])

    def delete(self, resource_id: str, known: Properties) -> None:
        """The images stay."""
        with unless_gone(*_GONE):
            self.client(known).delete_repository_policy(repositoryName=resource_id)


class RegistryScanning(AwsType):
    """How the account's registry scans: one a region, never truly deleted."""

    type_name = "aws:ecr/registryScanningConfiguration:RegistryScanningConfiguration"
    service = "ecr"
    immutable = ("region",)
    server_chosen = ("region",)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """ECR's words."""
        yield from one_of(inputs, "scanType", ("BASIC", "ENHANCED"))

    def create(self, inputs: Properties) -> str:
        """The account is its id."""
        self.update("", {}, inputs)
        return self.client(inputs).get_registry_scanning_configuration()["registryId"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """As the registry has it."""
        ecr = self.client(known)
        found = ecr.get_registry_scanning_configuration()
        configuration = from_api(found["scanningConfiguration"])
        return {
            "scanType": configuration["scanType"],
            "rules": configuration.get("rules") or None,
            "registryId": found["registryId"],
            "region": ecr.meta.region_name,
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        rules = new.get("rules") or []
        self.client(new).put_registry_scanning_configuration(scanType=new["scanType"], rules=rules)

    def delete(self, resource_id: str, known: Properties) -> None:
        """What stays is what a new account has."""
        self.client(known).put_registry_scanning_configuration(scanType="BASIC", rules=[])


class Replication(AwsType):
    """Where the account's registry copies images to: one a region, never truly deleted. moto copies none."""

    type_name = "aws:ecr/replicationConfiguration:ReplicationConfiguration"
    service = "ecr"
    immutable = ("region",)
    server_chosen = ("region",)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """ECR's one kind of filter."""
        for rule in (inputs.get("replicationConfiguration") or {}).get("rules") or ():
            yield from each(
                rule, "repositoryFilters", lambda one: one_of(one, "filterType", ("PREFIX_MATCH",))
            )

    def create(self, inputs: Properties) -> str:
        """The account is its id."""
        self.update("", {}, inputs)
        return self.client(inputs).describe_registry()["registryId"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """As the registry has it."""
        ecr = self.client(known)
        found = ecr.describe_registry()
        return {
            "replicationConfiguration": from_api(found["replicationConfiguration"]),
            "registryId": found["registryId"],
            "region": ecr.meta.region_name,
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.client(new).put_replication_configuration(
            replicationConfiguration=new.get("replicationConfiguration") or {"rules": []}
        )

    def delete(self, resource_id: str, known: Properties) -> None:
        """What stays is what a new account has."""
        self.client(known).put_replication_configuration(replicationConfiguration={"rules": []})


TYPES = (Repository(), LifecyclePolicy(), RepositoryPolicy(), RegistryScanning(), Replication())
