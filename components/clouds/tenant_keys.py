"""A KMS key a tenant, or one that many tenants share: what the tenants' data keys are wrapped with.

A key a tenant is what makes a tenant's data, backups included, end with its key. Where there are so many
tenants that a key each costs too much, those that may share one do: their wraps are kept apart by the
encryption context, and each has data keys of its own all the same. ``docs/fle-format.md`` has the figures.

With ``replica_regions`` keys are multi-region, each with a replica there: what one wraps the others open,
so the tenants' data outlives a region. A key is multi-region from its making or never, so those of a stage
that had none before are new keys. ``keep_former`` keeps the former beside them until every data key has been
wrapped again (``docs/runbooks/tenant-key-replicas.md``).

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
    replica_regions: Sequence[str] = ()
    auditors: Sequence[str] = ()
    keep_former: bool = False
    """Whether the single-region keys from before ``replica_regions`` stay as they are."""


@dataclass(frozen=True)
class TenantKey:
    """One tenant's key by name, its replicas, and the key it had before where that is kept."""

    arn: pulumi.Output[str]
    alias: pulumi.Output[str]
    replicas: Sequence[pulumi.Output[str]] = ()
    former: pulumi.Output[str] | None = None


class TenantKeys(pulumi.ComponentResource):
    """The tenants' keys, each usable only with a tenant of its own in the encryption context."""

    keys: Mapping[str, TenantKey]

    def __init__(self, name: str, args: TenantKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:security:TenantKeys", name, {}, opts)
        self._name, self._args = name, args
        self.keys = {
            tenant: self._make(tenant, f"{args.alias_prefix}/{tenant}", tenant) for tenant in args.tenants
        }
        if args.sharing:
            # No tenant can be called so: an id begins with a letter.
            shared = self._make("-shared", f"{args.alias_prefix}-shared", None)
            self.keys |= dict.fromkeys(args.sharing, shared)
        self.register_outputs({"arns": {tenant: key.arn for tenant, key in self.keys.items()}})

    def _make(self, suffix: str, alias_name: str, tenant: str | None) -> TenantKey:
        args = self._args
        former = None
        if not args.replica_regions:
            key = self._key(f"{self._name}-{suffix}", tenant)
        else:
            if args.keep_former:
                former = self._key(f"{self._name}-{suffix}", tenant).arn
            key = self._key(f"{self._name}--multi-{suffix}", tenant, multi_region=True)
        alias = aws.kms.Alias(
            f"{self._name}-{suffix}",
            name=alias_name,
            target_key_id=key.key_id,
            opts=retain_options(self, args.protect),
        )
        replicas = [self._replica(suffix, tenant, key, region) for region in args.replica_regions]
        return TenantKey(arn=key.arn, alias=alias.name, replicas=replicas, former=former)

    def _key(self, name: str, tenant: str | None, *, multi_region: bool = False) -> aws.kms.Key:
        args = self._args
        return aws.kms.Key(
            name,
            description=f"Wraps the data keys of {_whose(tenant)}",
            # Can't be changed later. What a single-region key never said it goes on not saying.
            multi_region=multi_region or None,
            enable_key_rotation=True,
            rotation_period_in_days=365,
            deletion_window_in_days=args.deletion_window_days,
            policy=self._policy(tenant, args.replica_regions if multi_region else ()),
            tags=self._tags(tenant),
            opts=retain_options(self, args.protect),
        )

    def _replica(self, suffix: str, tenant: str | None, key: aws.kms.Key, region: str) -> pulumi.Output[str]:
        args = self._args
        return aws.kms.ReplicaKey(
            f"{self._name}--multi-{suffix}-{region}",
            region=region,
            primary_key_arn=key.arn,
            description=f"Unwraps the data keys of {_whose(tenant)} while the primary region is away",
            deletion_window_in_days=args.deletion_window_days,
            policy=self._policy(tenant, args.replica_regions),
            tags=self._tags(tenant),
            opts=retain_options(self, args.protect),
        ).arn

    def _policy(self, tenant: str | None, replica_regions: Sequence[str]) -> pulumi.Output[str]:
        args = self._args
        return key_policy(args.administrators, args.users, {"tenant": tenant}, replica_regions, args.auditors)

    def _tags(self, tenant: str | None) -> dict[str, str]:
        return {**self._args.tags, **({"tenant": tenant} if tenant else {})}


def _whose(tenant: str | None) -> str:
    return f"tenant {tenant}" if tenant else "the tenants that share a key"
