"""IAM: no wildcard in what is allowed, no basic roles, no long-lived credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.policy.rule import Resource, Rule

IDENTITY_POLICIES = frozenset(
    {
        "aws:iam/policy:Policy",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/userPolicy:UserPolicy",
        "aws:iam/groupPolicy:GroupPolicy",
    }
)
WITHOUT_RESOURCE_TYPE = frozenset({"ecr:GetAuthorizationToken"})
"""Actions that AWS's service authorization reference lists without a resource type."""

GCP_BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/viewer"})
GCP_IAM = frozenset(
    {
        "gcp:projects/iAMMember:IAMMember",
        "gcp:projects/iAMBinding:IAMBinding",
        "gcp:storage/bucketIAMMember:BucketIAMMember",
        "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    }
)


def _listed(statement: Mapping[str, Any], key: str) -> list[str]:
    value = statement.get(key, [])
    return [value] if isinstance(value, str) else list(value)


def _no_wildcards(resource: Resource) -> Iterator[str]:
    for index, statement in enumerate(json.loads(resource.properties["policy"])["Statement"]):
        if statement["Effect"] != "Allow":
            continue
        place = f"statement {statement.get('Sid', index)}"
        actions = _listed(statement, "Action")
        for action in actions:
            if "*" in action:
                yield f"{place} allows {action}; list the actions that the workload needs"
        if "NotAction" in statement or "NotResource" in statement:
            yield f"{place} allows all but what it names; name what it allows"
        for target in _listed(statement, "Resource"):
            if target == "*" and not set(actions) <= WITHOUT_RESOURCE_TYPE:
                yield f"{place} allows {', '.join(actions)} on every resource; name the ARNs"
            elif target != "*" and "*" in target.removesuffix("/*"):
                yield f"{place} names {target}; a wildcard may only stand for the objects below a prefix (/*)"


def _no_basic_roles(resource: Resource) -> Iterator[str]:
    role = resource.properties.get("role")
    if role in GCP_BASIC_ROLES:
        yield f"{role} is a basic role and covers the whole project; grant a predefined role on the resource"
    members = [resource.properties.get("member"), *(resource.properties.get("members") or [])]
    for member in members:
        if member in ("allUsers", "allAuthenticatedUsers"):
            yield f"{member} opens this to the internet; name the service account"


def _no_access_keys(resource: Resource) -> Iterator[str]:
    yield f"{resource.name} is a long-lived credential; let the workload assume a role by its service account"


RULES = (
    Rule("iam-no-wildcard", "IAM policies name actions and resources.", IDENTITY_POLICIES, _no_wildcards),
    Rule(
        "gcp-least-privilege",
        "Google Cloud grants use predefined roles and named members.",
        GCP_IAM,
        _no_basic_roles,
    ),
    Rule(
        "no-long-lived-credentials",
        "Workloads have an identity, not an access key.",
        frozenset({"aws:iam/accessKey:AccessKey", "gcp:serviceaccount/key:Key"}),
        _no_access_keys,
    ),
)
