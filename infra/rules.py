"""Rules between settings: each yields the YAML path it concerns and what would be right.

What a single value may be stands with its type in :mod:`infra.settings`. Here is what only several
values together can break: duplicates, tiers out of order, locks longer than what they lock, locks
for ever outside prod, more promised than there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from infra.kafka_rules import Violation, brings_what_nats_is_given, knows_who_comes, takes_what_is_shown
from infra.limits import exceeded
from infra.setting_types import DEPLOYED
from infra.settings import TIERS, Settings


def violations(settings: Settings) -> list[Violation]:
    """Every rule that ``settings`` break, as pairs of a YAML path and a message."""
    return [violation for rule in RULES for violation in rule(settings)]


def _tenants_are_unique(settings: Settings) -> Iterator[Violation]:
    seen: dict[str, int] = {}
    for index, entry in enumerate(settings.tenants):
        if entry.id in seen:
            first = seen[entry.id]
            yield (
                f"tenants[{index}].id",
                f"tenant '{entry.id}' is already tenants[{first}]; give each tenant one entry",
            )
        seen.setdefault(entry.id, index)


def _tiers_are_in_order(settings: Settings) -> Iterator[Violation]:
    for better, worse in pairwise(TIERS):
        high, low = settings.tiers.policy(better).limit, settings.tiers.policy(worse).limit
        if low.requests_per_second > high.requests_per_second:
            yield (
                f"tiers.{worse}.limit.requests_per_second",
                f"{low.requests_per_second} is above {better}'s {high.requests_per_second}; "
                f"a lower tier has at most what the tier above it has",
            )
        promised, lesser = settings.tiers.policy(better).objective, settings.tiers.policy(worse).objective
        if lesser.availability_percent > promised.availability_percent:
            yield (
                f"tiers.{worse}.objective.availability_percent",
                f"{lesser.availability_percent} is above {better}'s {promised.availability_percent}; "
                f"a lower tier is promised at most what the tier above it is",
            )


def _objectives_fit_timeouts(settings: Settings) -> Iterator[Violation]:
    for tier in TIERS:
        policy = settings.tiers.policy(tier)
        if policy.objective.latency_threshold_ms > policy.timeout_ms:
            yield (
                f"tiers.{tier}.objective.latency_threshold_ms",
                f"{policy.objective.latency_threshold_ms} ms is above timeout_ms ({policy.timeout_ms}); "
                f"a request that timed out can't be within its objective",
            )


def _gold_fits_the_gateway(settings: Settings) -> Iterator[Violation]:
    gold = [tenant for tenant in settings.resolved_tenants if tenant.tier == "gold"]
    promised = sum(tenant.limit.requests_per_second for tenant in gold)
    capacity = settings.gateway.capacity_requests_per_second
    if promised > capacity:
        yield (
            "gateway.capacity_requests_per_second",
            f"the gateway has {capacity} requests/s, {len(gold)} gold tenants are promised {promised}; "
            f"raise it to at least {promised}, or lower their limits",
        )


def _weights_have_a_version(settings: Settings) -> Iterator[Violation]:
    if settings.ingest.next_image:
        return
    for index, entry in enumerate(settings.tenants):
        if entry.next_weight_percent:
            yield (
                f"tenants[{index}].next_weight_percent",
                f"{entry.next_weight_percent}% of '{entry.id}' would go to a version that isn't there; "
                f"set ingest.next_image, or 0",
            )


def _ramps_have_a_feature(settings: Settings) -> Iterator[Violation]:
    for name, count in Counter(feature.id for feature in settings.features).items():
        if count > 1:
            yield "features", f"feature '{name}' is listed {count} times; give each its own id"
    known = {feature.id for feature in settings.features}
    for index, entry in enumerate(settings.tenants):
        for feature in entry.ramps:
            if feature not in known:
                yield (
                    f"tenants[{index}].ramps.{feature}",
                    f"there is no feature '{feature}' in features; known here: "
                    f"{', '.join(sorted(known)) or 'none'}",
                )
        if entry.ramps and entry.next_weight_percent:
            yield (
                f"tenants[{index}].ramps",
                f"beside next_weight_percent {entry.next_weight_percent} nobody could tell which version "
                "failed; take one of them out",
            )


def _tenants_are_verified(settings: Settings) -> Iterator[Violation]:
    if settings.gateway.identity is None and not settings.is_dev:
        yield (
            "gateway.identity",
            f"whoever reaches the gateway could name any tenant in {settings.gateway.tenant_header}; give "
            f"jwt (verified at the gateway) or trusted_proxy (verified in front of it), see docs/traffic.md",
        )


def _certificates_are_asked_for_in_tls(settings: Settings) -> Iterator[Violation]:
    gateway = settings.gateway
    if gateway.identity and gateway.identity.client_certificate and gateway.tls is None:
        yield "gateway.tls", "clients show certificates in TLS alone; give the gateway's own (tls.secret)"
    if gateway.testers and gateway.testers.bare_header and settings.is_prod:
        yield "gateway.testers.bare_header", "anybody could choose the next version; use jwt in prod"


def _servers_are_known_by_certificates(settings: Settings) -> Iterator[Violation]:
    database = settings.database
    if database.sslmode.startswith("verify-") and database.ca is None:
        yield (
            "database.ca",
            f"missing; {database.sslmode} knows the server by it: give the certificates of who issued the "
            "server's, or use sslmode require",
        )
    if database.ca is not None and not database.sslmode.startswith("verify-"):
        yield "database.sslmode", f"'{database.sslmode}' looks at no certificate; use verify-full with ca"


def _limits_are_counted_where_they_are_shared(settings: Settings) -> Iterator[Violation]:
    service, path = settings.gateway.rate_limit_service, "gateway.rate_limit_service"
    if service == DEPLOYED:
        if settings.gateway.replicas == 1:
            yield (
                path,
                "the only gateway counts all of a limit itself; leave it out, or use at least 2 "
                "gateway.replicas",
            )
    elif service and service.namespace == settings.namespace:
        yield (
            f"{path}.namespace",
            f"'{service.namespace}' is the stage's own and has what the program deploys; use {DEPLOYED}, or "
            f"the namespace of a service of your own",
        )


def _aggregates_are_unique(settings: Settings) -> Iterator[Violation]:
    for name, count in Counter(settings.outbox.cdc_aggregates).items():
        if count > 1:
            yield "outbox.cdc_aggregates", f"aggregate '{name}' is listed {count} times; list it once"


def _events_outlive_their_fingerprints(settings: Settings) -> Iterator[Violation]:
    keep, window = settings.ingest.keep_days, settings.outbox.fingerprint_window_days
    if keep is not None and keep < window:
        yield (
            "ingest.keep_days",
            f"{keep} days, but a retry is compared with the row for {window} days"
            f" (outbox.fingerprint_window_days); use at least {window}, or leave it out",
        )


def _repositories_are_unique(settings: Settings) -> Iterator[Violation]:
    for name, count in Counter(settings.registry.repositories).items():
        if count > 1:
            yield "registry.repositories", f"repository '{name}' is listed {count} times; list it once"


def _replica_regions_are_others(settings: Settings) -> Iterator[Violation]:
    for region, count in Counter(settings.registry.replica_regions).items():
        if count > 1:
            yield "registry.replica_regions", f"region '{region}' is listed {count} times; list it once"
        if region == settings.aws.region:
            yield "registry.replica_regions", f"'{region}' is the primary's own region; leave it out"


def _rows_outlive_the_duplicate_window(settings: Settings) -> Iterator[Violation]:
    window, days = settings.bus.duplicate_window_seconds, settings.bus.retention_days
    if window > days * 86_400:
        yield (
            "bus.duplicate_window_seconds",
            f"{window} s is longer than the stream keeps messages (retention_days: {days}); "
            f"use at most {days * 86_400}",
        )


def _a_former_generation_was(settings: Settings) -> Iterator[Violation]:
    for place, credentials in (
        ("bus.credentials", settings.bus.credentials),
        ("database.credentials", settings.database.credentials),
    ):
        if credentials.former_accepted and credentials.generation == 1:
            yield (
                f"{place}.former_accepted",
                "there is no generation before 1; to replace the passwords set generation 2 beside it",
            )


def _backups_outlive_their_lock(settings: Settings) -> Iterator[Violation]:
    backups = settings.backups
    if backups.keep_days < backups.lock_days:
        yield (
            "backups.keep_days",
            f"{backups.keep_days} days is below lock_days ({backups.lock_days}); "
            f"use at least {backups.lock_days}",
        )


def _checkpoints_can_be_verified(settings: Settings) -> Iterator[Violation]:
    if settings.audit.signing_key_secret and not settings.field_encryption.audit_public_key:
        yield (
            "audit.signing_key_secret",
            "nobody could verify what it signs; set field_encryption.audit_public_key too",
        )


def _only_prod_locks_for_ever(settings: Settings) -> Iterator[Violation]:
    if settings.is_prod:
        return
    for path, store in (("backups.primary", settings.backups.primary), ("audit", settings.audit)):
        if store.lock_mode == "compliance":
            yield (
                f"{path}.lock_mode",
                f"compliance is for prod only: not even the account's root could empty '{store.bucket}'; "
                f"use governance",
            )
    if settings.backups.secondary.locked:
        yield (
            "backups.secondary.locked",
            "a locked retention policy is for prod only and can't be undone; use false",
        )


def _prod_is_protected(settings: Settings) -> Iterator[Violation]:
    if not settings.is_prod:
        return
    if not settings.protect:
        yield "protect", "prod keeps keys, locked buckets and registries; use true"
    if settings.policy_enforcement != "mandatory":
        yield "policy_enforcement", "prod is deployed under the policies' rules; use mandatory"
    if settings.promotion.soak_factor != 1:
        yield "promotion.soak_factor", "prod takes what has soaked for its whole time; use 1, or leave it out"
    if not settings.promotion.require_digests:
        yield "promotion.require_digests", "what goes to prod is a set of digests; use true, or leave it out"
    if settings.bus.replicas < 3:
        yield (
            "bus.replicas",
            f"prod needs a quorum that survives a node; use 3 or 5, not {settings.bus.replicas}",
        )


def _buckets_differ(settings: Settings) -> Iterator[Violation]:
    backups, audit = settings.backups, settings.audit
    if audit.bucket == backups.primary.bucket:
        yield "audit.bucket", f"'{audit.bucket}' is the backups' bucket already; use another one"
    replica = backups.replica
    if replica and replica.bucket in (backups.primary.bucket, audit.bucket):
        yield (
            "backups.replica.bucket",
            f"'{replica.bucket}' is another bucket's already; use another one",
        )
    if replica and replica.region == settings.aws.region:
        yield (
            "backups.replica.region",
            f"{replica.region} is the primary's region, with which a copy there is lost; use another one",
        )


def _accounts_agree(settings: Settings) -> Iterator[Violation]:
    aws = settings.aws
    if f"::{aws.account_id}:" not in aws.oidc_provider_arn:
        yield "aws.oidc_provider_arn", f"it belongs to another account than aws.account_id ({aws.account_id})"
    named = {
        "aws.key_administrators": aws.key_administrators,
        "aws.key_auditors": aws.key_auditors,
        "backups.restorers": settings.backups.restorers,
    }
    for path, arns in named.items():
        for index, arn in enumerate(arns):
            if f"::{aws.account_id}:" not in arn:
                yield (
                    f"{path}[{index}]",
                    f"{arn} belongs to another account than aws.account_id ({aws.account_id})",
                )
    for index, arn in enumerate(aws.key_auditors):
        if arn in aws.key_administrators:
            yield (
                f"aws.key_auditors[{index}]",
                f"{arn} administers the keys, which says more; name it once",
            )
    for index, arn in enumerate(settings.backups.restorers):
        if arn in aws.key_administrators:
            yield f"backups.restorers[{index}]", f"{arn} administers the keys; restore as another role"


def _keys_are_of_tenants_and_in_different_hands(settings: Settings) -> Iterator[Violation]:
    known = set(settings.tenant_ids)
    for index, user in enumerate(settings.aws.key_users):
        path = f"aws.key_users[{index}]"
        if user.role_arn in settings.aws.key_administrators:
            yield f"{path}.role_arn", f"{user.role_arn} administers the keys; use them as another role"
        for tenant in sorted(set(user.tenants or ()) - known):
            yield f"{path}.tenants", f"'{tenant}' is no tenant of this stage; name one of tenants"
    for name, count in Counter(user.name for user in settings.aws.key_users).items():
        if count > 1 or name in {"Ingest", "Consumer"}:
            yield "aws.key_users", f"the name '{name}' is taken; give each user its own"
    for tenant in sorted(set(settings.field_encryption.second_keys) - known):
        yield f"field_encryption.second_keys.{tenant}", "it is no tenant of this stage; name one of tenants"


def _tenant_keys_are_replicated_elsewhere(settings: Settings) -> Iterator[Violation]:
    replicas = settings.aws.tenant_key_replicas
    if replicas is None:
        return
    path = "aws.tenant_key_replicas"
    for region, count in Counter(replicas.regions).items():
        if count > 1:
            yield f"{path}.regions", f"region '{region}' is listed {count} times; list it once"
        if region == settings.aws.region:
            yield f"{path}.regions", f"'{region}' is the keys' own region; leave it out"
    if replicas.migrating:
        for tenant in sorted(settings.field_encryption.second_keys):
            yield (
                f"field_encryption.second_keys.{tenant}",
                f"while {path}.migrating is true, the second key is the former one; leave it out",
            )


RULES: tuple[Callable[[Settings], Iterator[Violation]], ...] = (
    _tenants_are_unique,
    _tiers_are_in_order,
    _objectives_fit_timeouts,
    _gold_fits_the_gateway,
    _weights_have_a_version,
    _ramps_have_a_feature,
    _tenants_are_verified,
    _certificates_are_asked_for_in_tls,
    _servers_are_known_by_certificates,
    _limits_are_counted_where_they_are_shared,
    _aggregates_are_unique,
    _events_outlive_their_fingerprints,
    _repositories_are_unique,
    _replica_regions_are_others,
    _rows_outlive_the_duplicate_window,
    _a_former_generation_was,
    brings_what_nats_is_given,
    knows_who_comes,
    takes_what_is_shown,
    _backups_outlive_their_lock,
    _checkpoints_can_be_verified,
    _only_prod_locks_for_ever,
    _prod_is_protected,
    _buckets_differ,
    _accounts_agree,
    _keys_are_of_tenants_and_in_different_hands,
    _tenant_keys_are_replicated_elsewhere,
    exceeded,
)
