"""Clusters: one for each version and tier, so that a tier's retries and queues starve no other."""

from __future__ import annotations

from collections.abc import Sequence

from kilo.tenancy import Tenant, TierName
from kilo.traffic.features import cluster_name, mirrored, next_cluster, shadow_cluster
from kilo.traffic.settings import GatewaySettings, TierTraffic, Upstream
from kilo.traffic.xds import METADATA, Json, discovery, duration, typed


def render_clusters(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the CDS file."""
    versions = {"stable": settings.stable, "next": settings.next}
    tiers: list[TierName] = sorted({tenant.tier for tenant in tenants})
    clusters = [
        _cluster(cluster_name(version, tier), version, tier, upstream, settings)
        for version, upstream in versions.items()
        if upstream is not None
        for tier in tiers
    ]
    clusters += [
        _cluster(next_cluster(feature.id, tier), "next", tier, feature.next, settings)
        for feature in settings.features
        for tier in tiers
    ]
    # A tenant's own while its requests are copied: a copy is in no access log, only in its cluster's counts.
    clusters += [
        _cluster(shadow_cluster(feature.id, tenant.id), "shadow", tenant.tier, feature.next, settings)
        for tenant, feature in mirrored(tenants, settings.features)
    ]
    return discovery(*(typed("envoy.config.cluster.v3.Cluster", **cluster) for cluster in clusters))


def _cluster(name: str, version: str, tier: TierName, upstream: Upstream, settings: GatewaySettings) -> Json:
    own = settings.tier(tier)
    most = own.max_concurrent_requests or settings.max_concurrent_requests
    address = {"socket_address": {"address": upstream.host, "port_value": upstream.port}}
    return {
        "name": name,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "metadata": {"filter_metadata": {METADATA: {"version": version}}},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": most,
                    "max_pending_requests": most,
                    "max_requests": most,
                    # A share of the requests in flight, not a count: retries can't multiply an outage.
                    "retry_budget": {
                        "budget_percent": {"value": float(own.retry_budget_percent)},
                        "min_retry_concurrency": 3,
                    },
                    "track_remaining": True,
                }
            ]
        },
        **_ejection(own),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                common_http_protocol_options={"idle_timeout": duration(settings.upstream_idle_timeout_ms)},
                explicit_http_config={"http_protocol_options": {}},
            )
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _ejection(own: TierTraffic) -> Json:
    if own.eject_after_failures is None:
        return {}
    return {
        "outlier_detection": {
            "consecutive_5xx": own.eject_after_failures,
            "base_ejection_time": "30s",
            # The others must be able to carry what the ejected did.
            "max_ejection_percent": 50,
        }
    }
