"""AWS KMS: keys, aliases and key policies."""

from __future__ import annotations

from collections.abc import Iterable

from botocore.exceptions import ClientError

from sandbox.providers.aws.clients import AwsType, error_code, tag_changes, tag_list, tag_outputs, unless_gone
from sandbox.providers.base import Autoname
from sandbox.providers.rules import one_of, within
from sandbox.providers.schema import Failure
from sandbox.providers.values import UNKNOWN, Properties

_GONE = ("NotFoundException", "KMSInvalidStateException")
_SPECS = [
    "SYMMETRIC_DEFAULT",
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SM2",
]


class Key(AwsType):
    """A key. Its deletion is scheduled, never immediate, as KMS has it."""

    type_name = "aws:kms/key:Key"
    service = "kms"
    tagged = True
    immutable = ("customKeyStoreId", "customerMasterKeySpec", "keyUsage", "multiRegion", "region", "xksKeyId")
    documents = ("policy",)
    unsupported = ("customKeyStoreId", "xksKeyId")
    defaults = {
        "bypassPolicyLockoutSafetyCheck": False,
        "customerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "enableKeyRotation": False,
        "isEnabled": True,
        "keyUsage": "ENCRYPT_DECRYPT",
    }
    server_chosen = ("region", "policy", "multiRegion", "rotationPeriodInDays", "description", "tagsAll")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Ranges of the API's reference."""
        yield from within(inputs, "deletionWindowInDays", 7, 30)
        yield from within(inputs, "rotationPeriodInDays", 90, 2560)
        yield from one_of(inputs, "keyUsage", ("ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC"))
        yield from one_of(inputs, "customerMasterKeySpec", _SPECS)
        if inputs.get("rotationPeriodInDays") is not None and inputs.get("enableKeyRotation") is False:
            yield Failure("rotationPeriodInDays", "needs enableKeyRotation to be true")
        if inputs.get("enableKeyRotation") is True and inputs["customerMasterKeySpec"] not in (
            "SYMMETRIC_DEFAULT",
            UNKNOWN,
        ):
            yield Failure("enableKeyRotation", "only symmetric encryption keys rotate")

    def create(self, inputs: Properties) -> str:
        """Create, then rotate or disable as asked."""
        kms = self.client(inputs)
        arguments = {
            "BypassPolicyLockoutSafetyCheck": inputs["bypassPolicyLockoutSafetyCheck"],
            "KeySpec": inputs["customerMasterKeySpec"],
            "KeyUsage": inputs["keyUsage"],
            "Tags": [{"TagKey": t["Key"], "TagValue": t["Value"]} for t in tag_list(inputs)],
            "Description": inputs.get("description"),
            "MultiRegion": inputs.get("multiRegion"),
            "Policy": inputs.get("policy"),
        }
        key_id: str = kms.create_key(**{k: v for k, v in arguments.items() if v is not None})["KeyMetadata"][
            "KeyId"
        ]
        self._rotate(kms, key_id, inputs)
        if not inputs["isEnabled"]:
            kms.disable_key(KeyId=key_id)
        return key_id

    @staticmethod
    def _rotate(kms: object, key_id: str, inputs: Properties) -> None:
        if inputs.get("enableKeyRotation"):
            period = inputs.get("rotationPeriodInDays")
            kms.enable_key_rotation(KeyId=key_id, **({"RotationPeriodInDays": period} if period else {}))  # type: ignore[attr-defined]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """A key whose deletion is scheduled counts as gone."""
        kms = self.client(known)
        try:
            metadata = kms.describe_key(KeyId=resource_id)["KeyMetadata"]
        except ClientError as error:
            if error_code(error) == "NotFoundException":
                return None
            raise
        # A primary key waits for its replicas' end first.
        if metadata["KeyState"] in {"PendingDeletion", "PendingReplicaDeletion"}:
            return None
        symmetric = metadata["KeySpec"] == "SYMMETRIC_DEFAULT"
        rotation = kms.get_key_rotation_status(KeyId=resource_id) if symmetric else {}
        tags = {t["TagKey"]: t["TagValue"] for t in kms.list_resource_tags(KeyId=resource_id)["Tags"]}
        return {
            "arn": metadata["Arn"],
            "keyId": metadata["KeyId"],
            "customerMasterKeySpec": metadata["KeySpec"],
            "keyUsage": metadata["KeyUsage"],
            "description": metadata.get("Description", ""),
            "isEnabled": metadata["KeyState"] != "Disabled",
            "multiRegion": metadata.get("MultiRegion", False),
            "enableKeyRotation": rotation.get("KeyRotationEnabled", False),
            # moto turns rotation on and off and keeps no period.
            "rotationPeriodInDays": rotation.get("RotationPeriodInDays") or known.get("rotationPeriodInDays"),
            "policy": kms.get_key_policy(KeyId=resource_id, PolicyName="default")["Policy"],
            "region": known.get("region") or kms.meta.region_name,
            **tag_outputs(tags, known),
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Only what changed is called for."""
        kms = self.client(new)
        if new.get("description", "") != old.get("description", ""):
            kms.update_key_description(KeyId=resource_id, Description=new.get("description", ""))
        if new.get("policy") and new["policy"] != old.get("policy"):
            kms.put_key_policy(
                KeyId=resource_id,
                PolicyName="default",
                Policy=new["policy"],
                BypassPolicyLockoutSafetyCheck=new["bypassPolicyLockoutSafetyCheck"],
            )
        # A disabled key refuses changes of its rotation, so it is enabled first and disabled last.
        if new["isEnabled"] and not old.get("isEnabled"):
            kms.enable_key(KeyId=resource_id)
        rotation = ("enableKeyRotation", "rotationPeriodInDays")
        if any(new.get(name) != old.get(name) for name in rotation):
            if new["enableKeyRotation"]:
                self._rotate(kms, resource_id, new)
            elif old.get("enableKeyRotation"):
                kms.disable_key_rotation(KeyId=resource_id)
        if not new["isEnabled"] and old.get("isEnabled"):
            kms.disable_key(KeyId=resource_id)
        put, removed = tag_changes(old, new)
        if put:
            kms.tag_resource(KeyId=resource_id, Tags=[{"TagKey": k, "TagValue": v} for k, v in put.items()])
        if removed:
            kms.untag_resource(KeyId=resource_id, TagKeys=removed)

    def delete(self, resource_id: str, known: Properties) -> None:
        """Schedule the deletion after the key's own window."""
        with unless_gone(*_GONE):
            self.client(known).schedule_key_deletion(
                KeyId=resource_id, PendingWindowInDays=known.get("deletionWindowInDays") or 30
            )


class ReplicaKey(AwsType):
    """A multi-region key in another region. Its material, id and rotation are the primary's."""

    type_name = "aws:kms/replicaKey:ReplicaKey"
    service = "kms"
    tagged = True
    immutable = ("primaryKeyArn", "region")
    documents = ("policy",)
    defaults = {"bypassPolicyLockoutSafetyCheck": False, "enabled": True}
    server_chosen = ("region", "policy", "description", "tagsAll")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """A replica lies in another region than its primary."""
        yield from within(inputs, "deletionWindowInDays", 7, 30)
        primary = inputs.get("primaryKeyArn")
        if isinstance(primary, str) and inputs.get("region") == primary.split(":")[3]:
            yield Failure("region", "is the primary key's; a replica lies in another")

    def create(self, inputs: Properties) -> str:
        """KMS is asked in the primary's region."""
        primary = inputs["primaryKeyArn"]
        kms = self.client(inputs)
        answer = self.client({"region": primary.split(":")[3]}).replicate_key(
            KeyId=primary.rpartition("/")[2], ReplicaRegion=kms.meta.region_name
        )
        key_id: str = answer["ReplicaKeyMetadata"]["KeyId"]
        # KMS takes these with the request; moto gives the replica those of its primary.
        if inputs.get("description") is not None:
            kms.update_key_description(KeyId=key_id, Description=inputs["description"])
        if inputs.get("policy"):
            kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=inputs["policy"])
        if tags := tag_list(inputs):
            kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": t["Key"], "TagValue": t["Value"]} for t in tags])
        if not inputs["enabled"]:
            kms.disable_key(KeyId=key_id)
        return key_id

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """A replica whose deletion is scheduled counts as gone."""
        found = Key().read(resource_id, known)
        if found is None:
            return None
        shared = ("arn", "description", "keyId", "policy", "region", "tags", "tagsAll")
        return {
            **{name: found[name] for name in shared if name in found},
            "enabled": found["isEnabled"],
            "keyRotationEnabled": found["enableKeyRotation"],
            "keySpec": found["customerMasterKeySpec"],
            "keyUsage": found["keyUsage"],
            "primaryKeyArn": known.get("primaryKeyArn"),
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """As a key's; rotation is the primary's."""
        as_key = {"enableKeyRotation": False, "rotationPeriodInDays": None}
        Key().update(
            resource_id,
            {**old, **as_key, "isEnabled": old.get("enabled")},
            {**new, **as_key, "isEnabled": new["enabled"]},
        )

    def delete(self, resource_id: str, known: Properties) -> None:
        """As a key's."""
        Key().delete(resource_id, known)


class Alias(AwsType):
    """Another name of a key."""

    type_name = "aws:kms/alias:Alias"
    service = "kms"
    immutable = ("name", "namePrefix", "region")
    autoname = Autoname(maximum=256, prefix="alias/")
    server_chosen = ("region",)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The prefix that KMS wants, and the one it keeps for itself."""
        name = inputs.get("name")
        if isinstance(name, str) and (not name.startswith("alias/") or name.startswith("alias/aws/")):
            yield Failure("name", f'must begin with "alias/" and not with "alias/aws/", and is "{name}"')

    def create(self, inputs: Properties) -> str:
        """The alias's name is its id."""
        self.client(inputs).create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
        return inputs["name"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Found by asking for the key behind it, since a list of all aliases grows with the tenants."""
        kms = self.client(known)
        try:
            key = kms.describe_key(KeyId=resource_id)["KeyMetadata"]
        except ClientError as error:
            if error_code(error) == "NotFoundException":
                return None
            raise
        by_arn = str(known.get("targetKeyId", "")).startswith("arn:")
        return {
            "name": resource_id,
            "arn": f"{key['Arn'].split(':key/')[0]}:{resource_id}",
            "targetKeyId": key["Arn"] if by_arn else key["KeyId"],
            "targetKeyArn": key["Arn"],
            "region": known.get("region") or kms.meta.region_name,
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Point it to another key."""
        self.client(new).update_alias(AliasName=resource_id, TargetKeyId=new["targetKeyId"])

    def delete(self, resource_id: str, known: Properties) -> None:
        """The key stays."""
        with unless_gone("NotFoundException"):
            self.client(known).delete_alias(AliasName=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        return inputs["name"] if self.read(inputs["name"], inputs) else None


class KeyPolicy(AwsType):
    """A key's policy as a resource of its own."""

    type_name = "aws:kms/keyPolicy:KeyPolicy"
    service = "kms"
    immutable = ("keyId", "region")
    documents = ("policy",)
    defaults = {"bypassPolicyLockoutSafetyCheck": False}
    server_chosen = ("region",)

    def create(self, inputs: Properties) -> str:
        """The key's id is its id."""
        self.update(inputs["keyId"], {}, inputs)
        return inputs["keyId"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Gone with its key."""
        kms = self.client(known)
        with unless_gone("NotFoundException"):
            policy = kms.get_key_policy(KeyId=resource_id, PolicyName="default")["Policy"]
            region = known.get("region") or kms.meta.region_name
            return {"keyId": known.get("keyId") or resource_id, "policy": policy, "region": region}
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put the whole policy."""
        self.client(new).put_key_policy(KeyId=resource_id, PolicyName="default", Policy=new["policy"])

    def delete(self, resource_id: str, known: Properties) -> None:
        """A key always has a policy: what stays is the one that KMS itself would have given it."""
        kms = self.client(known)
        with unless_gone(*_GONE):
            arn = kms.describe_key(KeyId=resource_id)["KeyMetadata"]["Arn"]
            kms.put_key_policy(
                KeyId=resource_id, PolicyName="default", Policy=_default_policy(arn.split(":")[4])
            )


def _default_policy(account: str) -> str:
    return (
        '{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions",'
        f'"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::{account}:root"}},"Action":"kms:*","Resource":"*"}}]}}'
    )


TYPES = (Key(), ReplicaKey(), Alias(), KeyPolicy())
