"""KMS keys: rotated, with time to think before deletion, administration and use in different hands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.policy.rule import Resource, Rule

AWS_KEY = "aws:kms/key:Key"
GCP_KEY = "gcp:kms/cryptoKey:CryptoKey"

CRYPTOGRAPHIC_USE = frozenset(
    {"Encrypt", "Decrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo", "Sign"}
)
ADMINISTRATION = frozenset({"PutKeyPolicy", "ScheduleKeyDeletion", "DisableKey", "CreateGrant"})
LEAST_DELETION_WINDOW_DAYS = 7
"""The shortest window that KMS takes."""


def _aws_rotation(resource: Resource) -> Iterator[str]:
    if resource.properties.get("customerMasterKeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        return  # KMS rotates symmetric keys only.
    if not resource.properties.get("enableKeyRotation"):
        yield "the key is never rotated; set enable_key_rotation=True"


def _deletion_window(resource: Resource) -> Iterator[str]:
    days = resource.properties.get("deletionWindowInDays")
    if days is None:
        yield "the deletion window is left to the provider; set deletion_window_in_days"
    elif days < LEAST_DELETION_WINDOW_DAYS:
        yield f"a deletion window of {days} days is too short; KMS takes {LEAST_DELETION_WINDOW_DAYS} to 30"


def _gcp_rotation(resource: Resource) -> Iterator[str]:
    if resource.properties.get(
        "purpose", "ENCRYPT_DECRYPT"
    ) == "ENCRYPT_DECRYPT" and not resource.properties.get("rotationPeriod"):
        yield "the key is never rotated; set rotation_period"


def _actions(statement: Mapping[str, Any]) -> frozenset[str]:
    actions = statement["Action"]
    names = [actions] if isinstance(actions, str) else actions
    return frozenset(name.removeprefix("kms:") for name in names)


def _principals(statement: Mapping[str, Any]) -> frozenset[str]:
    principal = statement["Principal"]
    if isinstance(principal, str):
        return frozenset({principal})
    found: set[str] = set()
    for value in principal.values():
        found.update([value] if isinstance(value, str) else value)
    return frozenset(found)


def _policy_separation(resource: Resource) -> Iterator[str]:
    policy = resource.properties.get("policy")
    if not policy:
        yield "KMS's default key policy lets the whole account administer and use the key; set policy"
        return
    administrators: set[str] = set()
    users: set[str] = set()
    for statement in json.loads(policy)["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        actions = _actions(statement)
        if any("*" in action for action in actions):
            yield f"statement {statement.get('Sid', '?')} has a wildcard; list the actions"
        if "*" in _principals(statement):
            yield f"statement {statement.get('Sid', '?')} allows everybody; name the principals"
        if actions & ADMINISTRATION:
            administrators |= _principals(statement)
        if actions & CRYPTOGRAPHIC_USE:
            users |= _principals(statement)
            # Signing takes no context.
            if actions & CRYPTOGRAPHIC_USE - {"Sign"} and not _names_a_context(statement):
                yield (
                    f"statement {statement.get('Sid', '?')} allows use with any encryption context; "
                    "add a condition on kms:EncryptionContext"
                )
    for principal in sorted(administrators & users):
        yield f"{principal} both administers and uses the key; give use and administration to different roles"


def _names_a_context(statement: Mapping[str, Any]) -> bool:
    keys = [key for condition in statement.get("Condition", {}).values() for key in condition]
    return any(key.startswith("kms:EncryptionContext:") for key in keys)


RULES = (
    Rule("kms-key-rotation", "AWS KMS keys are rotated every year.", frozenset({AWS_KEY}), _aws_rotation),
    Rule(
        "kms-deletion-window",
        "Deleting a KMS key leaves days to take it back.",
        frozenset({AWS_KEY}),
        _deletion_window,
    ),
    Rule(
        "kms-key-policy",
        "Nobody both administers and uses a KMS key, and use names an encryption context.",
        frozenset({AWS_KEY}),
        _policy_separation,
    ),
    Rule("gcp-key-rotation", "Cloud KMS keys are rotated.", frozenset({GCP_KEY}), _gcp_rotation),
)
