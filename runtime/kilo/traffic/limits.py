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
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "enable_retry_after_header": True,
        "rate_limits": per_tenant("limit", settings),
        "max_dynamic_descriptors": room(len(tenants)),
        "descriptors": [
            _descriptor(tenant, settings.replicas)
            for tenant in {limit_name(tenant): tenant for tenant in tenants}.values()
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


def _descriptor(tenant: Tenant, replicas: int) -> Json:
    return {
        # Without a value, each tenant has its own.
        "entries": [{"key": "limit", "value": limit_name(tenant)}, {"key": "tenant"}],
        # Each gateway refills its share: the tenant's rate over as many seconds as there are gateways.
        "token_bucket": {
            "max_tokens": ceil(tenant.limit.burst / replicas),
            "tokens_per_fill": tenant.limit.requests_per_second,
            "fill_interval": f"{replicas}s",
        },
    }
