"""A KMS key a tenant: what the tenant's data keys are wrapped with.

Left out on purpose: grants (the key policy says it all) and key material of our own (a key is made
in KMS and never leaves it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.key_policy import KeyUser, key_policy
from components.options import keep


@dataclass(frozen=True)
class TenantKeysArgs:
    """Which tenants get a key, who may administer and who may use them."""

    tenants: Sequence[str]
    alias_prefix: str
    """Such as ``alias/kilo/dev/tenant``; a tenant's id is appended."""
    administrators: Sequence[str]
    users: Sequence[KeyUser]
    deletion_window_days: int
    protect: bool
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TenantKey:
    """One tenant's key by name."""

    arn: pulumi.Output[str]
    alias: pulumi.Output[str]


class TenantKeys(pulumi.ComponentResource):
    """The tenants' keys, each usable only with its own tenant in the encryption context."""

    keys: Mapping[str, TenantKey]

    def __init__(self, name: str, args: TenantKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:security:TenantKeys", name, {}, opts)
        self.keys = {tenant: self._make(name, tenant, args) for tenant in args.tenants}
        self.register_outputs({"arns": {tenant: key.arn for tenant, key in self.keys.items()}})

    def _make(self, name: str, tenant: str, args: TenantKeysArgs) -> TenantKey:
        key = aws.kms.Key(
            f"{name}-{tenant}",
            description=f"Wraps the data keys of tenant {tenant}",
            enable_key_rotation=True,
            rotation_period_in_days=365,
            deletion_window_in_days=args.deletion_window_days,
            policy=key_policy(args.administrators, args.users, {"tenant": tenant}),
            tags={**args.tags, "tenant": tenant},
            opts=keep(self, args.protect),
        )
        alias = aws.kms.Alias(
            f"{name}-{tenant}",
            name=f"{args.alias_prefix}/{tenant}",
            target_key_id=key.key_id,
            opts=keep(self, args.protect),
        )
        return TenantKey(arn=key.arn, alias=alias.name)
