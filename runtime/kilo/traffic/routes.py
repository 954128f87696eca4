"""Routes: which tenant a request belongs to, which version serves it, and for how long.

Tenants are found by one hash look-up of the tenant header (``exact_match_map``), so a thousand
tenants cost a request no more than three. What is decided here is written into the route's
metadata, and limits, access log and statistics read the tenant from there, never from the header:
a client can't invent a label.
"""

from __future__ import annotations

from collections.abc import Sequence

from kilo.errors import BadInput
from kilo.tenancy import Tenant
from kilo.traffic.feature_routes import render_feature_routes
from kilo.traffic.features import cluster_name
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import METADATA, Json, discovery, duration, typed

ROUTES = "tenants"


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
    return {
        "name": ROUTES,
        # A retried request must not look like a new one to the upstream's own limits and logs.
        "request_headers_to_remove": ["x-envoy-attempt-count"],
        "virtual_hosts": [
            {
                "name": ROUTES,
                "domains": ["*"],
                "matcher": {
                    "matcher_tree": {
                        "input": _header_input(settings.tenant_header),
                        "exact_match_map": {
                            "map": {tenant.id: _tenant_action(tenant, settings) for tenant in tenants}
                        },
                    },
                    "on_no_match": {"matcher": _refusals(settings.tenant_header)},
                },
            }
        ],
    }


def _tenant_action(tenant: Tenant, settings: GatewaySettings) -> Json:
    whole = _tenant_route(tenant, settings)
    features = render_feature_routes(whole, tenant, settings)
    if not features:
        return _on_match(whole)
    routes = typed("envoy.config.route.v3.RouteList", routes=[*features, whole])
    return {"action": {"name": "route", "typed_config": routes}}


def _tenant_route(tenant: Tenant, settings: GatewaySettings) -> Json:
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
    return {
        "name": tenant.id,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {METADATA: {"tenant": tenant.id, "tier": tenant.tier}}},
        "route": route,
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


def _header_input(header: str) -> Json:
    return {
        "name": "request-headers",
        "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header),
    }


def _on_match(route: Json) -> Json:
    return {"action": {"name": "route", "typed_config": typed("envoy.config.route.v3.Route", **route)}}


def _refusals(header: str) -> Json:
    return {
        "matcher_list": {
            "matchers": [
                {
                    "predicate": {
                        "single_predicate": {
                            "input": _header_input(header),
                            "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
                        }
                    },
                    "on_match": _on_match(_refusal("unknown-tenant", 403, f"{header}: no such tenant")),
                }
            ]
        },
        "on_no_match": _on_match(
            _refusal("missing-tenant", 400, f"{header}: missing; name the tenant in this header")
        ),
    }


def _refusal(name: str, status: int, detail: str) -> Json:
    return {
        "name": name,
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": detail}},
    }
