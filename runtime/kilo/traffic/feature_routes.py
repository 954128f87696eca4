"""Routes of features: before a tenant's own route, and like it but for what a ramp changes."""

from __future__ import annotations

from collections.abc import Iterator

from kilo.tenancy import Tenant
from kilo.traffic.features import (
    READING_METHODS,
    SHADOW,
    FeatureRoutes,
    check_ramps,
    cluster_name,
    next_cluster,
    shadow_cluster,
    weight_of,
)
from kilo.traffic.settings import GatewayFeature, GatewaySettings
from kilo.traffic.xds import METADATA, Json


def render_feature_routes(whole: Json, tenant: Tenant, settings: GatewaySettings) -> list[Json]:
    """Render the routes of the features that ``tenant`` has a weight for, in the stage's order.

    Args:
        whole: the tenant's own route, from which timeout, retries and the stable version come.
        tenant: whose requests they match.
        settings: the gateway's.

    Raises:
        BadInput: the tenant has a weight for a feature that the gateway does not have.
    """
    check_ramps([tenant], settings.features)
    return [
        route
        for feature in settings.features
        if feature.id in tenant.ramps
        for route in _routes(whole, tenant, feature, settings.sticky_header)
    ]


def _routes(whole: Json, tenant: Tenant, feature: GatewayFeature, sticky_header: str) -> Iterator[Json]:
    route = _weighted(whole, tenant, feature)
    match = _match(whole["match"], feature.routes)
    if tenant.ramps[feature.id] == SHADOW:
        action = {
            **route["route"],
            "request_mirror_policies": [{"cluster": shadow_cluster(feature.id, tenant.id)}],
        }
        # A copy is a second request. What it writes has one effect only where a key says that it is the same.
        for condition in (
            {"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(READING_METHODS)}}},
            {"name": sticky_header, "present_match": True},
        ):
            copied = {**match, "headers": [*match.get("headers", ()), condition]}
            yield {**route, "match": copied, "route": action}
    yield {**route, "match": match}


def _weighted(whole: Json, tenant: Tenant, feature: GatewayFeature) -> Json:
    weight = weight_of(tenant, feature.id)
    # At one end of the hash range: raising the weight moves keys to the next version and none away.
    clusters = [
        {"name": next_cluster(feature.id, tenant.tier), "weight": weight},
        {"name": cluster_name("stable", tenant.tier), "weight": 100 - weight},
    ]
    said = whole["metadata"]["filter_metadata"][METADATA]
    return {
        **whole,
        "name": f"{whole['name']}/{feature.id}",
        "metadata": {"filter_metadata": {METADATA: {**said, "feature": feature.id}}},
        "route": {**whole["route"], "weighted_clusters": {"clusters": clusters, "use_hash_policy": True}},
    }


def _match(whole: Json, routes: FeatureRoutes) -> Json:
    """What a tenant's own route matches, and the feature's path instead of the API's where it has one."""
    match: Json = {"path_separated_prefix": routes.path} if routes.path else {"prefix": whole["prefix"]}
    headers = list(whole["headers"])
    if routes.header:
        headers.append({"name": routes.header.name, "string_match": {"exact": routes.header.value}})
    return {**match, "headers": headers}
