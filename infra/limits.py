"""AWS' limits on what grows with a stage: policies and patterns that list tenants or repositories.

Names decide how long they are, so the limit is told from the file, before anything is registered. A stage
that has come so far lists less, or is split into stacks of its tenants (``docs/daily-use.md`` says how).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.settings import Settings

IAM_INLINE_CHARACTERS = 10_240
"""All inline policies of a role together, white space not counted.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
KEY_POLICY_BYTES = 32_768
"""https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html"""
EVENT_PATTERN_CHARACTERS = 2_048
"""https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""


def exceeded(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every limit that the stage passes, as pairs of a YAML path and a message."""
    repositories = settings.registry.every_repository
    if (size := len(_pattern(settings))) > EVENT_PATTERN_CHARACTERS:
        yield (
            "registry.repositories",
            f"{len(repositories)} repositories make a pattern of {size} characters for push events, and "
            f"EventBridge takes {EVENT_PATTERN_CHARACTERS}; mirror fewer, or call them shorter",
        )
    if (size := size_of(mirroring_policy(settings))) > IAM_INLINE_CHARACTERS:
        yield (
            "registry.repositories",
            f"{len(repositories)} repositories make a policy of {size} characters for the mirror, and a "
            f"role takes {IAM_INLINE_CHARACTERS}; mirror fewer, or call them shorter",
        )
    size, tenant = max(
        (len(json.dumps(_document(key_policy_of(settings, each))).encode()), each or "-shared")
        for each in _keys(settings)
    )
    if size > KEY_POLICY_BYTES:
        whose = "that tenants share" if tenant == "-shared" else f"of '{tenant}'"
        yield (
            "aws.key_users",
            f"{len(settings.aws.key_users)} users with the tenants that each may reach make a policy of "
            f"{size} bytes for the key {whose}, and KMS takes {KEY_POLICY_BYTES}; name fewer, or leave out "
            "`tenants`",
        )


def _pattern(settings: Settings) -> str:
    from components.clouds.registry_access import push_pattern  # noqa: PLC0415

    return push_pattern(settings.registry.every_repository)


def mirroring_policy(settings: Settings) -> dict[str, Any]:
    """The policy of the role that mirrors, as it will be."""
    from components.clouds.registry_access import mirroring  # noqa: PLC0415

    region, account = settings.aws.region, settings.aws.account_id
    prefix = f"arn:aws:ecr:{region}:{account}:repository"
    arns = [f"{prefix}/{name}" for name in settings.registry.every_repository]
    queue = f"arn:aws:sqs:{region}:{account}:kilo-{settings.stage}-registry-push"
    return _document([statement.document() for statement in mirroring(arns, (queue, f"{queue}-dead"))])


def key_policy_of(settings: Settings, tenant: str | None) -> list[dict[str, Any]]:
    """The statements of a tenant's key, or of the shared one, as they will be."""
    # The engine's SDK is not wanted by all that reads a stage's file.
    from components.clouds.key_policy import key_statements  # noqa: PLC0415
    from infra.key_users import tenant_key_users  # noqa: PLC0415

    aws = settings.aws
    role = f"arn:aws:iam::{aws.account_id}:role/kilo-{settings.stage}"
    users = tenant_key_users(
        settings, ingest=f"{role}-ingest", consumer=f"{role}-consumer", key_making=f"{role}-key-making"
    )
    regions = aws.tenant_key_replicas.regions if aws.tenant_key_replicas else ()
    return key_statements(aws.key_administrators, users, {"tenant": tenant}, regions, aws.key_auditors)


def _keys(settings: Settings) -> set[str | None]:
    """Whose keys could have the longest policy; None is the shared one."""
    own = [tenant.id for tenant in settings.resolved_tenants if tenant.kms_key == "own"]
    shared: set[str | None] = {None} if len(own) < len(settings.tenants) else set()
    # Where every user reaches every tenant, nothing but the name differs.
    alike = all(user.tenants is None for user in settings.aws.key_users)
    return shared | set([max(own, key=len)] if own and alike else own)


def _document(statements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def size_of(document: Mapping[str, Any]) -> int:
    """A policy's characters as IAM counts them, without white space."""
    return len(json.dumps(document, separators=(",", ":")))
