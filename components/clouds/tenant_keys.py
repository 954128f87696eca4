"""A KMS key a tenant, or one that many tenants share: what the tenants' data keys are wrapped with.

A key a tenant is what makes a tenant's data, backups included, end with its key. Where there are so many
tenants that a key each costs too much, those that may share one do: their wraps are kept apart by the
encryption context, and each has data keys of its own all the same. ``docs/fle-format.md`` has the figures.

Who may use which tenants' keys is said in the key policies, by sets of tenants (:class:`KeyUser`). Left out
on purpose: KMS grants (whoever may make one can give use away, past every review) and key material of our
own (a key is made in KMS and never leaves it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.clouds.key_policy import KeyUser, key_policy
from components.clouds.options import retain_options


@dataclass(frozen=True)
class TenantKeysArgs:
    """Which tenants get a key, who may administer and who may use them."""

    tenants: Sequence[str]
    """Those that get a key of their own."""
    alias_prefix: str
    """Such as ``alias/kilo/dev/tenant``; a tenant's id is appended, or ``-shared``."""
    administrators: Sequence[str]
    users: Sequence[KeyUser]
    deletion_window_days: int
    protect: bool
    tags: Mapping[str, str]
    sharing: Sequence[str] = ()
    """Tenants that share one key."""


@dataclass(frozen=True)
class TenantKey:
    """One tenant's key by name."""

    arn: pulumi.Output[str]
    alias: pulumi.Output[str]


class TenantKeys(pulumi.ComponentResource):
    """The tenants' keys, each usable only with a tenant of its own in the encryption context."""

    keys: Mapping[str, TenantKey]

    def __init__(self, name: str, args: TenantKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:security:TenantKeys", name, {}, opts)
        self.keys = {
            tenant: self._make(f"{name}-{tenant}", f"{args.alias_prefix}/{tenant}", tenant, args)
            for tenant in args.tenants
        }
        if args.sharing:
            # No tenant can be called so: an id begins with a letter.
            shared = self._make(f"{name}--shared", f"{args.alias_prefix}-shared", None, args)
            self.keys |= dict.fromkeys(args.sharing, shared)
        self.register_outputs({"arns": {tenant: key.arn for tenant, key in self.keys.items()}})

    def _make(self, name: str, alias_name: str, tenant: str | None, args: TenantKeysArgs) -> TenantKey:
        whose = f"tenant {tenant}" if tenant else "the tenants that share a key"
        key = aws.kms.Key(
            name,
            description=f"Wraps the data keys of {whose}",
            enable_key_rotation=True,
            rotation_period_in_days=365,
            deletion_window_in_days=args.deletion_window_days,
            policy=key_policy(args.administrators, args.users, {"tenant": tenant}),
            tags={**args.tags, **({"tenant": tenant} if tenant else {})},
            opts=retain_options(self, args.protect),
        )
        alias = aws.kms.Alias(
            name,
            name=alias_name,
            target_key_id=key.key_id,
            opts=retain_options(self, args.protect),
        )
        return TenantKey(arn=key.arn, alias=alias.name)
