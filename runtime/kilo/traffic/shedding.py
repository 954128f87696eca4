"""Shedding: who is refused first when the services become slow.

Each request is within its tenant's fair share of the stage's capacity or above it, as a bucket says that
refuses nothing and marks what it would refuse. Six adaptive limits of concurrency follow, one for each tier
and side of the share. Each lets fewer requests through while its own latency is above its target, and the
targets are in order: what is above bronze's shares goes first, what is within gold's last. So a tenant's
surge is shed before its neighbours' usual requests, and a tier before the tier above it.

Left out: admission control, which looks at errors when it is too late and knows no tenants, and priorities,
which move between hosts and refuse nothing (docs/traffic.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from kilo.tenancy import Tenant
from kilo.traffic.limits import LIMITS_TYPE, per_tenant, room
from kilo.traffic.routes import OVER_SHARE_HEADER, TIER_STATE, share_name
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.shares import TIERS, fair_shares
from kilo.traffic.xds import Json, discovery, typed

SHARES = "tenant-shares"
SHEDDING_KEY = "gateway.shedding_enabled"

_TARGETS = {
    ("gold", "within"): 1.0,
    ("silver", "within"): 0.9,
    ("bronze", "within"): 0.8,
    ("gold", "over"): 0.7,
    ("silver", "over"): 0.6,
    ("bronze", "over"): 0.5,
}
"""Of the strictest objective's latency, above which requests of this kind are shed."""
_OVER_SHARE_FLOOR = 2
"""Above the share, concurrency may fall to half of what it never falls below within. It begins there too,
so a lower floor would refuse a burst that meets a fresh gateway with nothing to do."""

_OVER_SHARE_ROOM = 0.25
"""Of what the services finish within the target, how much may be in flight above the shares of a tier. A
fifth of the capacity is left for it when all take what is theirs, and the more is in flight, the longer all
wait."""


def render_shares(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the ECDS file with the filter that marks what is above a share."""
    return discovery(
        typed(
            "envoy.config.core.v3.TypedExtensionConfig",
            name=SHARES,
            typed_config=typed(LIMITS_TYPE, **render_shares_filter(tenants, settings)),
        )
    )


def render_shares_filter(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the filter itself, without its envelope."""
    capacity = settings.capacity_requests_per_second
    shares: Mapping[str, float] = (
        fair_shares(tenants, capacity)
        if capacity is not None
        else {tenant.id: float(tenant.limit.requests_per_second) for tenant in tenants}
    )
    # Tenants of one tier and limit have the same share.
    by_name = {share_name(tenant): shares[tenant.id] for tenant in tenants}
    return {
        "stat_prefix": "tenant_shares",
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 0}},
        "request_headers_to_add_when_not_enforced": [
            {
                "header": {"key": OVER_SHARE_HEADER, "value": "1"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "rate_limits": per_tenant("share", settings),
        "max_dynamic_descriptors": room(len(tenants)),
        "descriptors": [_descriptor(name, share / settings.replicas) for name, share in by_name.items()],
    }


def _descriptor(name: str, requests_per_second: float) -> Json:
    tokens = ceil(requests_per_second)
    return {
        "entries": [{"key": "share", "value": name}, {"key": "tenant"}],
        "token_bucket": {
            "max_tokens": tokens,
            "tokens_per_fill": tokens,
            "fill_interval": f"{tokens / requests_per_second:.3f}s",
        },
    }


def render_shedding(settings: GatewaySettings, target_latency_ms: int) -> Json:
    """Render the filter that has a limit of concurrency for each tier and side of the share."""
    return {
        "name": "shedding",
        "typed_config": typed(
            "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            xds_matcher={
                "matcher_tree": {
                    "input": {
                        "name": "over-share",
                        "typed_config": typed(
                            "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=OVER_SHARE_HEADER
                        ),
                    },
                    "exact_match_map": {"map": {"1": _by_tier("over", settings, target_latency_ms)}},
                },
                "on_no_match": _by_tier("within", settings, target_latency_ms),
            },
            extension_config={
                "name": "composite",
                "typed_config": typed("envoy.extensions.filters.http.composite.v3.Composite"),
            },
        ),
    }


def _by_tier(side: str, settings: GatewaySettings, target_latency_ms: int) -> Json:
    return {
        "matcher": {
            "matcher_tree": {
                "input": {
                    "name": "tier",
                    "typed_config": typed(
                        "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key=TIER_STATE
                    ),
                },
                "exact_match_map": {
                    "map": {tier: _controller(tier, side, settings, target_latency_ms) for tier in TIERS}
                },
            }
        }
    }


def _interval_seconds(target_seconds: float) -> float:
    """How often a limit moves: not much oftener than answers come, which tell what it did."""
    return min(max(0.1, target_seconds / 2), 1.0)


def _controller(tier: str, side: str, settings: GatewaySettings, target_latency_ms: int) -> Json:
    floor = settings.min_concurrent_requests
    if side == "over":
        floor = max(1, floor // _OVER_SHARE_FLOOR)
    name = f"{tier}-{side}"
    target_seconds = target_latency_ms * _TARGETS[tier, side] / 1000
    most = settings.max_concurrent_requests
    if settings.capacity_requests_per_second is not None:
        # More than the services finish within the target would only wait (Little's law).
        fits = settings.capacity_requests_per_second / settings.replicas * target_seconds
        most = min(most, max(floor, ceil(fits * (_OVER_SHARE_ROOM if side == "over" else 1))))
    controller = typed(
        "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        enabled={"default_value": True, "runtime_key": SHEDDING_KEY},
        concurrency_limit_exceeded_status={"code": 429},
        gradient_controller_config={
            "sample_aggregate_percentile": {"value": 90},
            "concurrency_limit_params": {
                "max_concurrency_limit": most,
                "concurrency_update_interval": f"{_interval_seconds(target_seconds):.3f}s",
            },
            # A fixed target: measuring one would close the gateway to a few requests every minute.
            "min_rtt_calc_params": {
                "fixed_value": f"{target_seconds:.3f}s",
                "min_concurrency": floor,
            },
        },
    )
    return {
        "action": {
            "name": "execute",
            "typed_config": typed(
                "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
                typed_config={"name": name, "typed_config": controller},
            ),
        }
    }
