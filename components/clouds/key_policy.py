"""KMS key policies that keep administration and use in different hands.

The policy is the only source of access: it names no account root, so no IAM policy elsewhere can
widen it. Administrators can't encrypt or decrypt; users can't change, disable or delete; auditors see
how a key is set up, which the nightly look for drift needs, and do neither. The principal that
deploys must be one of the administrators, or KMS refuses the policy.

Resource ``*`` means the key itself here; a key policy knows nothing else.
https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.clouds.iam import policy_json

ADMINISTER = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)
AUDIT = (
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
)
REPLICATE = ("kms:ReplicateKey",)
ENCRYPT = ("kms:Encrypt",)
DECRYPT = ("kms:Decrypt",)
SIGN = ("kms:Sign",)
VERIFY = ("kms:GetPublicKey",)


@dataclass(frozen=True)
class KeyUser:
    """A principal that uses a key, or several alike, and the actions needed for that."""

    sid: str
    principal_arn: pulumi.Input[str] | list[str]
    actions: Sequence[str]
    tenants: frozenset[str] | None = None
    """The tenants whose data it may reach with these actions; ``None`` is all of them."""


def key_policy(
    administrators: Sequence[str],
    users: Sequence[KeyUser],
    encryption_context: Mapping[str, str | Sequence[str] | None],
    replica_regions: Sequence[str] = (),
    auditors: Sequence[str] = (),
) -> pulumi.Output[str]:
    """The policy of one key as JSON: see :func:`key_statements`."""
    return policy_json(key_statements(administrators, users, encryption_context, replica_regions, auditors))


def key_statements(
    administrators: Sequence[str],
    users: Sequence[KeyUser],
    encryption_context: Mapping[str, str | Sequence[str] | None],
    replica_regions: Sequence[str] = (),
    auditors: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The statements of one key: who administers it, and who uses it under which encryption context.

    A value of the context is what it must be, or the list of what it may be, or ``None`` when it must only
    be there. ``tenants`` of a user narrows the context's ``tenant``; a user that reaches none gets nothing.
    A multi-region key can be replicated to ``replica_regions`` and to no other. ``auditors`` read how the key
    is set up.
    """
    statements = [_allow("Administer", list(administrators), ADMINISTER)]
    if replica_regions:
        only = {"StringEquals": {"kms:ReplicaRegion": list(replica_regions)}}
        statements.append(_allow("Replicate", list(administrators), REPLICATE, only))
    if auditors:
        statements.append(_allow("Audit", list(auditors), AUDIT))
    for user in users:
        context = dict(encryption_context)
        if user.tenants is not None and "tenant" in context:
            reached = _narrowed(context["tenant"], user.tenants)
            if not reached:
                continue
            context["tenant"] = reached
        # Signing and DescribeKey take no encryption context.
        under = _condition(context) if context else None
        statements.append(_allow(f"{user.sid}Uses", user.principal_arn, user.actions, under))
        statements.append(_allow(f"{user.sid}Describes", user.principal_arn, ("kms:DescribeKey",)))
    return statements


def _allow(
    sid: str,
    principal: pulumi.Input[str] | list[str],
    actions: Sequence[str],
    condition: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": list(actions),
        "Resource": "*",
    }
    return {**statement, "Condition": condition} if condition else statement


def _narrowed(allowed: str | Sequence[str] | None, tenants: frozenset[str]) -> str | list[str]:
    if allowed is None:
        return sorted(tenants)
    if isinstance(allowed, str):
        return allowed if allowed in tenants else ""
    return sorted(tenants & set(allowed))


def _condition(context: Mapping[str, str | Sequence[str] | None]) -> dict[str, dict[str, Any]]:
    named = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
    equal = {name: value for name, value in named.items() if value is not None}
    # Whatever the value, an empty or a missing context is refused.
    there = {name: "false" for name, value in named.items() if value is None}
    return {**({"StringEquals": equal} if equal else {}), **({"Null": there} if there else {})}
