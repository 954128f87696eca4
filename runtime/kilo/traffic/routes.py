"""Routes: which tenant a request belongs to, which version serves it, and for how long.

A tenant is found by one hash look-up of its header among the virtual hosts' domains, so ten thousand tenants
cost a request no more than three. Tenants whose routes are the same share a virtual host, in which a tenant
is no more than its name: the file grows with what differs. Once a tenant is found, its name is kept in the
stream's filter state, and limits, access log and statistics read it from there: a client can't invent a
label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from math import ceil

from kilo.errors import BadInput
from kilo.tenancy import Tenant
from kilo.traffic.feature_routes import render_feature_routes
from kilo.traffic.features import cluster_name
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.told_limits import render_told_limit
from kilo.traffic.xds import METADATA, Json, discovery, duration, typed

ROUTES = "tenants"
UNKNOWN = "unknown"
"""The virtual host of whoever is no tenant."""
STATE_FILTER = "tenant"
"""The filter that keeps what was found, and the name of its settings on routes."""
OVER_SHARE_HEADER = "x-kilo-over-share"
"""Marks a request above its tenant's share, between two of the gateway's own filters."""
VERSION_HEADER = "x-kilo-version"
"""``next`` for a tester, by whom the stage's file lets say so."""
TENANT_STATE = "kilo.tenant"
TIER_STATE = "kilo.tier"
_STATE_TYPE = "envoy.extensions.filters.http.set_filter_state.v3.Config"


def render_routes(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the RDS file.

    Raises:
        BadInput: a tenant has a weight for a next version that the gateway does not have.
    """
    return discovery(
        typed("envoy.config.route.v3.RouteConfiguration", **render_route_configuration(tenants, settings))
    )


def render_route_configuration(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the one route configuration, without its envelope."""
    shared: dict[str, tuple[Json, list[str]]] = {}
    for tenant in tenants:
        routes = _tenant_routes(tenant, settings)
        text = json.dumps(routes, sort_keys=True)
        name = f"{tenant.tier}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        host: Json = {"routes": routes}
        if settings.rate_limit_service:
            # Tenants whose routes are the same have the same limit.
            host["typed_per_filter_config"] = render_told_limit(tenant, OVER_SHARE_HEADER)
        shared.setdefault(name, (host, []))[1].append(tenant.id)
    return {
        "name": ROUTES,
        "vhost_header": settings.tenant_header,
        # A retried request must not look like a new one to the upstream's own limits and logs.
        "request_headers_to_remove": ["x-envoy-attempt-count", OVER_SHARE_HEADER, VERSION_HEADER],
        "typed_per_filter_config": {
            STATE_FILTER: typed(
                _STATE_TYPE,
                on_request_headers=[
                    _keep(TENANT_STATE, f"%REQUEST_HEADER({settings.tenant_header})%"),
                    _keep(TIER_STATE, f"%METADATA(ROUTE:{METADATA}:tier)%"),
                ],
            )
        },
        "virtual_hosts": [
            *({"name": name, "domains": names, **host} for name, (host, names) in shared.items()),
            _unknown(settings.tenant_header),
        ],
    }


def render_state_filter() -> Json:
    """Render the filter that keeps the tenant; what it keeps stands with the routes, once one is found."""
    return {"name": STATE_FILTER, "typed_config": typed(_STATE_TYPE)}


def limit_name(tenant: Tenant) -> str:
    """Name a limit: tenants of one limit share its entry, and each has a bucket of its own."""
    return f"{tenant.limit.requests_per_second}/{tenant.limit.burst}"


def share_name(tenant: Tenant) -> str:
    """Name a fair share: tenants of one tier and limit have the same."""
    return f"{tenant.tier} {limit_name(tenant)}"


def limit_policy(tenant: Tenant, settings: GatewaySettings) -> str:
    """A tenant's limit as a RateLimit-Policy has it, so many in so many seconds.

    It is one gateway's share, or all of it where a service counts for all of them.
    """
    limit, replicas = tenant.limit, settings.replicas
    if settings.rate_limit_service:
        return f"q={limit.requests_per_second};w=1"
    return f"q={ceil(limit.burst / replicas)};w={ceil(limit.burst / limit.requests_per_second)}"


def _tenant_routes(tenant: Tenant, settings: GatewaySettings) -> list[Json]:
    """The routes of a tenant, the first that matches wins. Nothing in them may name the tenant."""
    if tenant.next_weight_percent and settings.next is None:
        msg = (
            f"tenant {tenant.id}: next_weight_percent is {tenant.next_weight_percent}, "
            "but the gateway has no next version; set it to 0 or deploy one"
        )
        raise BadInput(msg)
    weights = [(cluster_name("stable", tenant.tier), 100 - tenant.next_weight_percent)]
    if settings.next is not None:
        # At one end of the hash range: raising the weight moves keys to the next version and none away.
        weights.insert(0, (cluster_name("next", tenant.tier), tenant.next_weight_percent))
    route: Json = {
        "weighted_clusters": {
            "clusters": [{"name": name, "weight": weight} for name, weight in weights],
            "use_hash_policy": True,
        },
        "hash_policy": [{"header": {"header_name": settings.sticky_header}}],
        "timeout": duration(tenant.timeout_ms),
    }
    if tenant.retries:
        route["retry_policy"] = _retry_policy(tenant.retries)
    api: Json = {
        "name": "api",
        "match": {"prefix": settings.api_prefix, "headers": [_lower_case(settings.tenant_header)]},
        "metadata": {"filter_metadata": {METADATA: _facts(tenant, settings)}},
        "route": route,
    }
    features = render_feature_routes(api, tenant, settings)
    own = [*_hedged(api, tenant, settings), api]
    if settings.next is None or settings.testers is None:
        return [*features, *own]
    tester = {"name": VERSION_HEADER, "string_match": {"exact": "next"}}
    everything = {"clusters": [{"name": cluster_name("next", tenant.tier), "weight": 100}]}
    return [
        *features,
        {
            **api,
            "name": "testers",
            "match": {**api["match"], "headers": [*api["match"]["headers"], tester]},
            "route": {**route, "weighted_clusters": everything},
        },
        *own,
    ]


def _hedged(api: Json, tenant: Tenant, settings: GatewaySettings) -> list[Json]:
    """A route for reads that are asked a second time when the first answer is late."""
    after = settings.tier(tenant.tier).hedge_reads_after_ms
    if after is None:
        return []
    reads = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    retries = {
        **_retry_policy(max(1, tenant.retries)),
        "per_try_timeout": duration(after),
    }
    return [
        {
            **api,
            "name": "reads",
            "match": {**api["match"], "headers": [*api["match"]["headers"], reads]},
            "route": {
                **api["route"],
                "retry_policy": retries,
                "hedge_policy": {"hedge_on_per_try_timeout": True},
            },
        }
    ]


def _facts(tenant: Tenant, settings: GatewaySettings) -> Json:
    """What filters and logs ask the route for."""
    return {
        "tier": tenant.tier,
        "limit": limit_name(tenant),
        "share": share_name(tenant),
        "policy": limit_policy(tenant, settings),
    }


def _retry_policy(retries: int) -> Json:
    # Retries share the request's one timeout and have none of their own: a try that is slow under
    # load is not doubled. Writes carry an idempotency key, so a second try has no second effect.
    return {
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
        "retriable_status_codes": [502, 503],
        "num_retries": retries,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
    }


def _lower_case(header: str) -> Json:
    # Envoy looks domains up in lower case, and a name in capitals would have a bucket of its own.
    return {"name": header, "string_match": {"safe_regex": {"regex": "[a-z0-9-]+"}}}


def _keep(key: str, value: str) -> Json:
    return {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": value}},
    }


def _unknown(header: str) -> Json:
    return {
        "name": UNKNOWN,
        "domains": ["*"],
        "routes": [
            {
                "name": "unknown-tenant",
                "match": {"prefix": "/"},
                "direct_response": {"status": 403, "body": {"inline_string": f"{header}: no such tenant"}},
            }
        ],
        # Nobody was found: the name is kept nowhere, so that strangers' make no labels.
        "typed_per_filter_config": {
            STATE_FILTER: typed(_STATE_TYPE, on_request_headers=[_keep(TENANT_STATE, "")])
        },
    }
