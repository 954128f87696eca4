"""KMS key policies that keep administration and use in different hands.

The policy is the only source of access: it names no account root, so no IAM policy elsewhere can
widen it. Administrators can't encrypt or decrypt; users can't change, disable or delete. The
principal that deploys must be one of the administrators, or KMS refuses the policy.

Resource ``*`` means the key itself here; a key policy knows nothing else.
https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.iam import policy_json

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
ENCRYPT = ("kms:Encrypt",)
DECRYPT = ("kms:Decrypt",)


@dataclass(frozen=True)
class KeyUser:
    """A principal that uses a key, and the actions it needs for that."""

    sid: str
    principal_arn: pulumi.Input[str]
    actions: Sequence[str]


def key_policy(
    administrators: Sequence[str],
    users: Sequence[KeyUser],
    encryption_context: Mapping[str, str],
) -> pulumi.Output[str]:
    """The policy of one key: who administers it, and who uses it under which encryption context."""
    statements: list[dict[str, Any]] = [
        {
            "Sid": "Administer",
            "Effect": "Allow",
            "Principal": {"AWS": list(administrators)},
            "Action": list(ADMINISTER),
            "Resource": "*",
        }
    ]
    condition = {
        "StringEquals": {f"kms:EncryptionContext:{name}": value for name, value in encryption_context.items()}
    }
    for user in users:
        statements.append(
            {
                "Sid": f"{user.sid}Uses",
                "Effect": "Allow",
                "Principal": {"AWS": user.principal_arn},
                "Action": list(user.actions),
                "Resource": "*",
                "Condition": condition,
            }
        )
        # DescribeKey takes no encryption context.
        statements.append(
            {
                "Sid": f"{user.sid}Describes",
                "Effect": "Allow",
                "Principal": {"AWS": user.principal_arn},
                "Action": ["kms:DescribeKey"],
                "Resource": "*",
            }
        )
    return policy_json(statements)
