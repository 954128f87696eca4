"""Per-tenant limits: a token bucket each, refused with 429 and the seconds until a token is there.

Tenants of one limit share an entry and have a bucket each, made when a tenant first asks. Envoy keeps such
buckets in a bounded cache, and a tenant evicted from it would come back with a full bucket: the cache is
larger than the tenants are many, and none but they get that far. The filter comes by its own discovery file,
so a changed limit reaches a running gateway without a new listener, and a change of routes leaves the
buckets as full as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from kilo.tenancy import Tenant
from kilo.traffic.routes import limit_name
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import METADATA, Json, discovery, typed

LIMITS = "tenant-limits"
LIMITS_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
ENFORCED_KEY = "gateway.limits_enforced"
DOMAIN = "kilo"
"""Of the limits that a rate limit service counts (``global_limits.py``)."""
_ANSWERED = "envoy.filters.http.ratelimit"


def render_limits(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the ECDS file with the rate limit filter."""
    return discovery(
        typed(
            "envoy.config.core.v3.TypedExtensionConfig",
            name=LIMITS,
            typed_config=typed(LIMITS_TYPE, **render_limits_filter(tenants, settings)),
        )
    )


def render_limits_filter(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the filter itself, without its envelope."""
    return {
        "stat_prefix": "tenant_limits",
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}, "runtime_key": ENFORCED_KEY},
        # With a service, it tells what is left.
        "enable_x_ratelimit_headers": "OFF" if settings.rate_limit_service else "DRAFT_VERSION_03",
        "enable_retry_after_header": True,
        "rate_limits": _found_by(settings),
        "max_dynamic_descriptors": room(len(tenants) * (2 if settings.rate_limit_service else 1)),
        "descriptors": [
            descriptor
            for tenant in {limit_name(tenant): tenant for tenant in tenants}.values()
            for descriptor in _descriptors(tenant, settings)
        ],
    }


def per_tenant(named: str, settings: GatewaySettings) -> list[Json]:
    """Render what a bucket is found by: what the route's metadata has under ``named``, and the tenant."""
    return [
        {
            "actions": [
                {
                    "metadata": {
                        "descriptor_key": named,
                        "source": "ROUTE_ENTRY",
                        "metadata_key": {"key": METADATA, "path": [{"key": named}]},
                        # An unknown tenant has no metadata: it is refused by its route instead.
                        "skip_if_absent": True,
                    }
                },
                {"request_headers": {"header_name": settings.tenant_header, "descriptor_key": "tenant"}},
            ]
        }
    ]


def room(tenants: int) -> int:
    """How many tenants' buckets are kept."""
    # By powers of two: a changed filter starts with full buckets, and one more tenant shall not change it.
    return max(64, 1 << tenants.bit_length())


def _found_by(settings: GatewaySettings) -> list[Json]:
    found = per_tenant("limit", settings)
    if settings.rate_limit_service:
        found[0]["actions"].append(_judge())
    return found


def _judge() -> Json:
    """The action that tells whether the service has answered: its domain, or ``none``."""
    return {
        "metadata": {
            "descriptor_key": "judge",
            "source": "DYNAMIC",
            "metadata_key": {"key": _ANSWERED, "path": [{"key": "domain"}]},
            "default_value": "none",
        }
    }


def _descriptors(tenant: Tenant, settings: GatewaySettings) -> list[Json]:
    if settings.rate_limit_service is None:
        return [_descriptor(tenant, settings.replicas)]
    # The split where the service has not answered, and never more than the whole at one gateway where it has.
    return [
        _descriptor(tenant, settings.replicas, {"key": "judge", "value": "none"}),
        _descriptor(tenant, 1, {"key": "judge", "value": DOMAIN}),
    ]


def _descriptor(tenant: Tenant, replicas: int, *more: Json) -> Json:
    return {
        # Without a value, each tenant has its own.
        "entries": [{"key": "limit", "value": limit_name(tenant)}, {"key": "tenant"}, *more],
        # Each gateway refills its share: the tenant's rate over as many seconds as there are gateways.
        "token_bucket": {
            "max_tokens": ceil(tenant.limit.burst / replicas),
            "tokens_per_fill": tenant.limit.requests_per_second,
            "fill_interval": f"{replicas}s",
        },
    }
