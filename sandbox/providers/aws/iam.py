"""AWS IAM: roles, policies and their attachments. Global, so without a region."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from sandbox.providers.aws.clients import SESSION, AwsType, tag_changes, tag_list, tag_outputs, unless_gone
from sandbox.providers.base import Autoname
from sandbox.providers.rules import matches, within
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_GONE = ("NoSuchEntity", "NoSuchEntityException")


class _IamType(AwsType):
    service = "iam"
    server_chosen = ("tagsAll",)

    def preview_outputs(self, inputs: Properties) -> Properties:
        """IAM has no regions."""
        return {k: v for k, v in super().preview_outputs(inputs).items() if k != "region"}

    def retag(self, what: str, key: Properties, old: Properties, new: Properties) -> None:
        """Set and take away the tags that changed."""
        put, removed = tag_changes(old, new)
        client = self.client(new)
        if put:
            getattr(client, f"tag_{what}")(**key, Tags=[{"Key": k, "Value": v} for k, v in put.items()])
        if removed:
            getattr(client, f"untag_{what}")(**key, TagKeys=removed)


def _text(document: Any) -> str:
    # boto3 decodes what it knows to be a document; moto's text is in any case a JSON one.
    return unquote(document) if isinstance(document, str) else json.dumps(document)


class Role(_IamType):
    """An identity that workloads take on."""

    type_name = "aws:iam/role:Role"
    tagged = True
    immutable = ("name", "namePrefix", "path")
    autoname = Autoname(maximum=64)
    documents = ("assumeRolePolicy",)
    defaults = {"forceDetachPolicies": False, "maxSessionDuration": 3600, "path": "/"}
    server_chosen = ("tagsAll", "namePrefix", "managedPolicyArns", "inlinePolicies")
    unsupported = ("managedPolicyArns", "inlinePolicies")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Ranges of the API's reference."""
        yield from matches(inputs, "name", r"[\w+=,.@-]{1,64}", "1 to 64 letters, digits and any of _+=,.@-")
        yield from matches(inputs, "path", r"/|/.{0,510}/", "a path that begins and ends with /")
        yield from within(inputs, "maxSessionDuration", 3600, 43_200)

    def create(self, inputs: Properties) -> str:
        """The role's name is its id."""
        arguments = {
            "RoleName": inputs["name"],
            "AssumeRolePolicyDocument": inputs["assumeRolePolicy"],
            "Description": inputs.get("description"),
            "MaxSessionDuration": inputs["maxSessionDuration"],
            "Path": inputs["path"],
            "PermissionsBoundary": inputs.get("permissionsBoundary"),
            "Tags": tag_list(inputs),
        }
        self.client(inputs).create_role(**{k: v for k, v in arguments.items() if v is not None})
        return inputs["name"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Live, but for ``forceDetachPolicies``."""
        with unless_gone(*_GONE):
            found = self.client(known).get_role(RoleName=resource_id)["Role"]
            tags = {t["Key"]: t["Value"] for t in found.get("Tags") or ()}
            return {
                "name": resource_id,
                "arn": found["Arn"],
                "assumeRolePolicy": _text(found["AssumeRolePolicyDocument"]),
                "createDate": found["CreateDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
                "description": found.get("Description") or None,
                "maxSessionDuration": found.get("MaxSessionDuration", 3600),
                "path": found["Path"],
                "permissionsBoundary": (found.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn"),
                "uniqueId": found["RoleId"],
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Only what changed is called for."""
        iam = self.client(new)
        if new["assumeRolePolicy"] != old.get("assumeRolePolicy"):
            iam.update_assume_role_policy(RoleName=resource_id, PolicyDocument=new["assumeRolePolicy"])
        changed = ("description", "maxSessionDuration")
        if any(new.get(name) != old.get(name) for name in changed):
            iam.update_role(
                RoleName=resource_id,
                Description=new.get("description") or "",
                MaxSessionDuration=new["maxSessionDuration"],
            )
        boundary = new.get("permissionsBoundary")
        if boundary != old.get("permissionsBoundary"):
            if boundary:
                iam.put_role_permissions_boundary(RoleName=resource_id, PermissionsBoundary=boundary)
            else:
                iam.delete_role_permissions_boundary(RoleName=resource_id)
        self.retag("role", {"RoleName": resource_id}, old, new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """A role with policies goes only when ``forceDetachPolicies`` says so, as in IAM."""
        iam = self.client(known)
        with unless_gone(*_GONE):
            if known.get("forceDetachPolicies"):
                for name in iam.list_role_policies(RoleName=resource_id)["PolicyNames"]:
                    iam.delete_role_policy(RoleName=resource_id, PolicyName=name)
                for one in iam.list_attached_role_policies(RoleName=resource_id)["AttachedPolicies"]:
                    iam.detach_role_policy(RoleName=resource_id, PolicyArn=one["PolicyArn"])
            iam.delete_role(RoleName=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        return inputs["name"] if self.read(inputs["name"], inputs) else None


class RolePolicy(_IamType):
    """A role's own policy."""

    type_name = "aws:iam/rolePolicy:RolePolicy"
    immutable = ("name", "namePrefix", "role")
    autoname = Autoname(maximum=128)
    documents = ("policy",)
    server_chosen = ("namePrefix",)

    def create(self, inputs: Properties) -> str:
        """``role:name``, as the official provider joins them."""
        self.update("", {}, inputs)
        return f"{inputs['role']}:{inputs['name']}"

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Live."""
        role, _, name = resource_id.partition(":")
        with unless_gone(*_GONE):
            found = self.client(known).get_role_policy(RoleName=role, PolicyName=name)
            return {"role": role, "name": name, "policy": _text(found["PolicyDocument"])}
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.client(new).put_role_policy(
            RoleName=new["role"], PolicyName=new["name"], PolicyDocument=new["policy"]
        )

    def delete(self, resource_id: str, known: Properties) -> None:
        """The role stays."""
        role, _, name = resource_id.partition(":")
        with unless_gone(*_GONE):
            self.client(known).delete_role_policy(RoleName=role, PolicyName=name)


class Policy(_IamType):
    """A policy of its own."""

    type_name = "aws:iam/policy:Policy"
    tagged = True
    immutable = ("name", "namePrefix", "path", "description")
    autoname = Autoname(maximum=128)
    documents = ("policy",)
    defaults = {"path": "/"}
    server_chosen = ("tagsAll", "namePrefix")
    unsupported = ("delayAfterPolicyCreationInMs",)

    def create(self, inputs: Properties) -> str:
        """The policy's ARN is its id."""
        arguments = {
            "PolicyName": inputs["name"],
            "Path": inputs["path"],
            "PolicyDocument": inputs["policy"],
            "Description": inputs.get("description"),
            "Tags": tag_list(inputs),
        }
        return self.client(inputs).create_policy(**{k: v for k, v in arguments.items() if v is not None})[
            "Policy"
        ]["Arn"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Its default version."""
        iam = self.client(known)
        with unless_gone(*_GONE):
            found = iam.get_policy(PolicyArn=resource_id)["Policy"]
            version = iam.get_policy_version(PolicyArn=resource_id, VersionId=found["DefaultVersionId"])
            tags = {t["Key"]: t["Value"] for t in iam.list_policy_tags(PolicyArn=resource_id)["Tags"]}
            return {
                "arn": found["Arn"],
                "name": found["PolicyName"],
                "path": found["Path"],
                "description": found.get("Description") or None,
                "policyId": found["PolicyId"],
                "attachmentCount": found.get("AttachmentCount", 0),
                "policy": _text(version["PolicyVersion"]["Document"]),
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """A new default version; the oldest makes room for it, since IAM keeps five."""
        iam = self.client(new)
        if new["policy"] != old.get("policy"):
            versions = iam.list_policy_versions(PolicyArn=resource_id)["Versions"]
            spare = [v["VersionId"] for v in versions if not v["IsDefaultVersion"]]
            if len(versions) >= 5:
                oldest = min(spare, key=lambda version: int(version[1:]))
                iam.delete_policy_version(PolicyArn=resource_id, VersionId=oldest)
            iam.create_policy_version(PolicyArn=resource_id, PolicyDocument=new["policy"], SetAsDefault=True)
        self.retag("policy", {"PolicyArn": resource_id}, old, new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """With its versions; one that is attached can't be deleted, as in IAM."""
        iam = self.client(known)
        with unless_gone(*_GONE):
            for version in iam.list_policy_versions(PolicyArn=resource_id)["Versions"]:
                if not version["IsDefaultVersion"]:
                    iam.delete_policy_version(PolicyArn=resource_id, VersionId=version["VersionId"])
            iam.delete_policy(PolicyArn=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By the ARN that its name gives it."""
        arn = f"arn:aws:iam::{SESSION.account}:policy{inputs['path']}{inputs['name']}"
        return arn if self.read(arn, inputs) else None


class OpenIdConnectProvider(_IamType):
    """Whose tokens the account's roles may trust."""

    type_name = "aws:iam/openIdConnectProvider:OpenIdConnectProvider"
    tagged = True
    immutable = ("url",)
    server_chosen = ("tagsAll", "thumbprintLists")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """An issuer is asked over TLS."""
        yield from matches(inputs, "url", r"https://.{1,247}", "a URL that begins with https://")

    def create(self, inputs: Properties) -> str:
        """The provider's ARN is its id."""
        arguments = {
            "Url": inputs["url"],
            "ClientIDList": inputs["clientIdLists"],
            "ThumbprintList": inputs.get("thumbprintLists"),
            "Tags": tag_list(inputs),
        }
        given = {k: v for k, v in arguments.items() if v is not None}
        return self.client(inputs).create_open_id_connect_provider(**given)["OpenIDConnectProviderArn"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """IAM leaves the scheme out of the URL."""
        with unless_gone(*_GONE):
            found = self.client(known).get_open_id_connect_provider(OpenIDConnectProviderArn=resource_id)
            tags = {t["Key"]: t["Value"] for t in found.get("Tags") or ()}
            return {
                "arn": resource_id,
                "url": f"https://{found['Url'].removeprefix('https://')}",
                "clientIdLists": found["ClientIDList"],
                "thumbprintLists": found["ThumbprintList"],
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Each audience by itself."""
        iam, key = self.client(new), {"OpenIDConnectProviderArn": resource_id}
        before, after = old["clientIdLists"], new["clientIdLists"]
        for each in after:
            if each not in before:
                iam.add_client_id_to_open_id_connect_provider(**key, ClientID=each)
        for each in before:
            if each not in after:
                iam.remove_client_id_from_open_id_connect_provider(**key, ClientID=each)
        self.retag("open_id_connect_provider", key, old, new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """What trusts it stays, and trusts nobody."""
        with unless_gone(*_GONE):
            self.client(known).delete_open_id_connect_provider(OpenIDConnectProviderArn=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By the ARN that its URL gives it."""
        arn = f"arn:aws:iam::{SESSION.account}:oidc-provider/{inputs['url'].removeprefix('https://')}"
        return arn if self.read(arn, inputs) else None


class RolePolicyAttachment(_IamType):
    """A policy on a role."""

    type_name = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    immutable = ("role", "policyArn")
    server_chosen = ()

    def create(self, inputs: Properties) -> str:
        """``role/policy``, as it is imported."""
        self.client(inputs).attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
        return f"{inputs['role']}/{inputs['policyArn']}"

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Found among the role's policies."""
        role, _, arn = resource_id.partition("/")
        with unless_gone(*_GONE):
            pages = self.client(known).get_paginator("list_attached_role_policies").paginate(RoleName=role)
            if any(one["PolicyArn"] == arn for page in pages for one in page["AttachedPolicies"]):
                return {"role": role, "policyArn": arn}
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Every change replaces."""

    def delete(self, resource_id: str, known: Properties) -> None:
        """Both ends stay."""
        role, _, arn = resource_id.partition("/")
        with unless_gone(*_GONE):
            self.client(known).detach_role_policy(RoleName=role, PolicyArn=arn)


TYPES = (Role(), RolePolicy(), Policy(), RolePolicyAttachment(), OpenIdConnectProvider())
