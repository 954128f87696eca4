"""Who may do what under policies: AWS' evaluation logic, and of Google's the part that the program uses.

Written here since no kept library answers it: those on PyPI (parliament, policyuniverse, policy-sentry,
cloudsplaining) lint one document, and moto's own evaluator knows neither conditions nor resource policies
of KMS and SQS. It refuses to guess: an operator, an element or a principal that it doesn't know is an error,
not a denial. Left out, as the program has none: permission boundaries, session and organization policies.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.infra.access.conditions import Context, filled, listed, met, wild

_ELEMENTS = {
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
}
_RESOURCE_POLICY_DECIDES = ("kms:", "sts:AssumeRole")
"""Where an identity's own policy is nothing without the resource's: keys and roles that are taken."""


@dataclass(frozen=True)
class Call:
    """One request, by the ARN of a role or an OIDC provider, a service's name, or ``*``: anybody."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict[str, "str | Sequence[str]"])


@dataclass(frozen=True)
class Decision:
    """Whether the call goes through, and the statements that said so."""

    allowed: bool
    because: str


@dataclass
class World:
    """Every policy that there is: those of roles by the role's ARN, those of resources by the resource's."""

    identities: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, "list[dict[str, Any]]"])
    resources: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])

    def decide(self, call: Call) -> Decision:
        """What AWS answers to ``call``."""
        context = _context(call)
        policy = self._policy_of(call.resource)
        own = [
            found
            for document in self.identities.get(call.principal, [])
            for found in _matching(document, call, context, of_resource=False)
        ]
        theirs = _matching(policy, call, context, of_resource=True) if policy else []
        for statement in (*own, *theirs):
            if statement["Effect"] == "Deny":
                return Decision(allowed=False, because=f"denied by {_name(statement)}")
        granted = [each for each in theirs if not _is_delegation(each, call)]
        delegated = [each for each in theirs if _is_delegation(each, call)]
        # A bucket's ARN names no account; all buckets here are the stage's own.
        same = _account(call.principal) in {"", _account(call.resource)} or not _account(call.resource)
        if granted and (same or own):
            return Decision(allowed=True, because=f"allowed by the resource's {_name(granted[0])}")
        # S3's and SQS' resources are open to their own account's identities without a word of theirs.
        decides = call.action.startswith(_RESOURCE_POLICY_DECIDES) and not _is_without_policy(call)
        if own and (delegated or (same and not decides)):
            return Decision(allowed=True, because=f"allowed by the identity's {_name(own[0])}")
        return Decision(allowed=False, because="no statement allows it")

    def _policy_of(self, resource: str) -> dict[str, Any] | None:
        """The policy of a resource; that of an object is its bucket's."""
        if resource.startswith("arn:aws:s3:::"):
            return self.resources.get(resource.partition("/")[0])
        return self.resources.get(resource)


def _is_without_policy(call: Call) -> bool:
    """Whether KMS asks the identity's policies alone: of names of keys, and of one that is to be."""
    return call.action in {"kms:CreateKey", "kms:ListAliases"} or ":alias/" in call.resource


def _context(call: Call) -> Context:
    """The request's context with what AWS adds to each."""
    added: dict[str, str | Sequence[str]] = {"aws:SecureTransport": "true"}
    if call.principal.startswith("arn:aws:iam:"):
        added |= {"aws:PrincipalArn": call.principal, "aws:PrincipalAccount": _account(call.principal)}
    if call.principal.endswith(".amazonaws.com") and ":" not in call.principal:
        added["aws:PrincipalIsAWSService"] = "true"
    return {name.lower(): value for name, value in {**added, **call.context}.items()}


def _matching(
    document: Mapping[str, Any], call: Call, context: Context, *, of_resource: bool
) -> list[dict[str, Any]]:
    variables = document.get("Version") == "2012-10-17"
    return [
        statement
        for statement in listed(document["Statement"])
        if _matches(statement, call, context, of_resource=of_resource, variables=variables)
    ]


def _matches(
    statement: Mapping[str, Any], call: Call, context: Context, *, of_resource: bool, variables: bool
) -> bool:
    if unknown := set(statement) - _ELEMENTS:
        msg = f"{_name(statement)}: no element of a policy is called {sorted(unknown)}"
        raise ValueError(msg)
    if statement["Effect"] not in {"Allow", "Deny"}:
        msg = f"{_name(statement)}: Effect is {statement['Effect']}"
        raise ValueError(msg)
    return (
        _for_principal(statement, call, of_resource=of_resource)
        and _chosen(statement, "Action", lambda pattern: wild(pattern.lower(), call.action.lower()))
        and _for_resource(statement, call, context, variables=variables)
        and met(statement.get("Condition", {}), context, variables=variables)
    )


def _for_principal(statement: Mapping[str, Any], call: Call, *, of_resource: bool) -> bool:
    named = "Principal" in statement or "NotPrincipal" in statement
    if named != of_resource:
        msg = f"{_name(statement)}: {'has a' if named else 'has no'} principal"
        raise ValueError(msg)
    if not of_resource:
        return True
    if "NotPrincipal" in statement:
        if statement["Effect"] == "Allow":
            msg = f"{_name(statement)}: NotPrincipal with Allow is for everybody else in the world"
            raise ValueError(msg)
        return not _is_one_of(statement["NotPrincipal"], call.principal)
    return _is_one_of(statement["Principal"], call.principal)


def _is_one_of(principals: str | Mapping[str, Any], who: str) -> bool:
    if principals == "*":
        return True
    assert isinstance(principals, Mapping), principals
    kinds = {"AWS", "Service", "Federated"}
    if unknown := set(principals) - kinds:
        msg = f"no kind of principal is called {sorted(unknown)}"
        raise ValueError(msg)
    # Principals take no wildcard but the one that is everybody.
    named = [name for kind in kinds for name in listed(principals.get(kind, []))]
    account = _account(who)
    whole = {account, f"arn:aws:iam::{account}:root"} if account and ":oidc-provider/" not in who else set()
    return any(name in {"*", who, *whole} for name in named)


def _is_delegation(statement: Mapping[str, Any], call: Call) -> bool:
    """Whether an Allow names the account and so only lets the account's own policies decide."""
    principals = statement["Principal"]
    if principals == "*" or "*" in listed(principals.get("AWS", [])):
        return False
    return call.principal not in [name for names in principals.values() for name in listed(names)]


def _for_resource(statement: Mapping[str, Any], call: Call, context: Context, *, variables: bool) -> bool:
    if "Resource" not in statement and "NotResource" not in statement:
        return call.action.startswith("sts:AssumeRole")  # A trust policy is about its own role alone.

    def matches(pattern: str) -> bool:
        if pattern == "*":
            return True
        pieces = filled(pattern, context) if variables else [pattern]
        if pieces is None:
            return False
        patterns, parts = _split(pieces), call.resource.split(":", 5)
        return len(patterns) == len(parts) and all(
            wild(wanted, part) for wanted, part in zip(patterns, parts, strict=True)
        )

    return _chosen(statement, "Resource", matches)


def _split(pattern: str | list[str]) -> list[str]:
    return ("".join(pattern) if isinstance(pattern, list) else pattern).split(":", 5)


def _chosen(statement: Mapping[str, Any], element: str, matches: Callable[[str], bool]) -> bool:
    if f"Not{element}" in statement:
        return not any(matches(pattern) for pattern in listed(statement[f"Not{element}"]))
    return any(matches(pattern) for pattern in listed(statement[element]))


def _account(arn: str) -> str:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 else ""


def _name(statement: Mapping[str, Any]) -> str:
    return str(statement.get("Sid", "statement without a Sid"))


ROLES: Mapping[str, frozenset[str]] = {
    "roles/storage.objectCreator": frozenset({"storage.objects.create"}),
    "roles/storage.objectViewer": frozenset({"storage.objects.get", "storage.objects.list"}),
    "roles/storage.legacyBucketReader": frozenset({"storage.buckets.get", "storage.objects.list"}),
    "roles/artifactregistry.writer": frozenset(
        {
            "artifactregistry.repositories.downloadArtifacts",
            "artifactregistry.repositories.uploadArtifacts",
            "artifactregistry.tags.create",
            "artifactregistry.tags.update",
        }
    ),
    "roles/artifactregistry.reader": frozenset(
        {"artifactregistry.repositories.downloadArtifacts", "artifactregistry.repositories.get"}
    ),
    "roles/browser": frozenset({"resourcemanager.projects.get"}),
    "roles/cloudasset.viewer": frozenset({"cloudasset.assets.searchAllResources"}),
    # Lists everything and who may use it, and gets nothing.
    "roles/iam.securityReviewer": frozenset(
        {"artifactregistry.repositories.getIamPolicy", "storage.buckets.getIamPolicy", "storage.objects.list"}
    ),
    "roles/storage.bucketViewer": frozenset({"storage.buckets.get", "storage.buckets.list"}),
}
"""What Google's roles let do, as far as the platform asks for it.

https://cloud.google.com/iam/docs/roles-permissions
"""

_STARTS = re.compile(r'resource\.name\.startsWith\("([^"\\]*)"\)')


def google_allows(bindings: Sequence[Mapping[str, Any]], member: str, permission: str, resource: str) -> bool:
    """Whether one of a resource's ``bindings`` lets ``member`` do it to what is called ``resource`` there."""
    return any(
        binding["member"] in {member, "allUsers", "allAuthenticatedUsers"}
        and permission in ROLES[binding["role"]]
        and _expression(binding.get("condition"), resource)
        for binding in bindings
    )


def _expression(condition: Mapping[str, Any] | None, resource: str) -> bool:
    if condition is None:
        return True
    prefixes: list[str] = []
    for term in condition["expression"].split(" || "):
        found = _STARTS.fullmatch(term)
        if found is None:
            msg = f"the condition {term} is none that is understood here"
            raise ValueError(msg)
        prefixes.append(found[1])
    return any(resource.startswith(prefix) for prefix in prefixes)
