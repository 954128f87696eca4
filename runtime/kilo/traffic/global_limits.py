"""Limits that hold over all gateways: a rate limit service counts, and the local split is behind it.

Envoy asks the service (https://github.com/envoyproxy/ratelimit) for each request and tells it the tenant's
limit along with its name, so the service has no list of tenants that could be an older one. When the service
does not answer, nothing tells the next filter that it did, and that one counts by the gateway's own share of
the limit, as it does in a stage without the service. When it does answer, a bucket of the whole limit stays
in force at each gateway: a service that counts nothing (no such domain) lets through no more than that.

The service counts whole seconds. A burst beyond the limit of a second is refused, and two half bursts around
a second's edge are not.
"""

from __future__ import annotations

from kilo.traffic.limits import DOMAIN, per_tenant
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.told_limits import TELL_FILTER, TELL_TYPE, TOLD
from kilo.traffic.xds import Json, duration, typed

SERVICE_CLUSTER = "rate-limits"
_PATIENCE_MS = 100
"""For an answer, after which the split counts."""
_FAILURES = 5
"""So many on end, and nobody waits for the service for as long as it is ejected."""

_KEEPALIVE: Json = {"interval": "5s", "timeout": "2s"}
"""A connection to a pod that hangs is given up, and the next one goes to a pod that doesn't."""
ENFORCED_KEY = "ratelimit.http_filter_enforcing"
"""Envoy's own key, in percent."""


def render_global_filters(settings: GatewaySettings) -> list[Json]:
    """Render the filters; none where the stage's limits are split."""
    if settings.rate_limit_service is None:
        return []
    return [
        {"name": TELL_FILTER, "typed_config": typed(TELL_TYPE)},
        {
            "name": "global-limits",
            "typed_config": typed(
                "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                domain=DOMAIN,
                timeout=duration(_PATIENCE_MS),
                failure_mode_deny=False,
                enable_x_ratelimit_headers="DRAFT_VERSION_03",
                rate_limits=[
                    {
                        **descriptor,
                        "limit": {
                            "dynamic_metadata": {"metadata_key": {"key": TOLD, "path": [{"key": "limit"}]}}
                        },
                    }
                    for descriptor in per_tenant("limit", settings)
                ],
                rate_limit_service={
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": SERVICE_CLUSTER}},
                },
            ),
        },
    ]


def render_service_cluster(settings: GatewaySettings) -> list[Json]:
    """Render the cluster of the service; none where the stage's limits are split."""
    service = settings.rate_limit_service
    if service is None:
        return []
    address = {"socket_address": {"address": service.host, "port_value": service.port}}
    return [
        {
            "name": SERVICE_CLUSTER,
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_PREFERRED",
            "connect_timeout": duration(_PATIENCE_MS),
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    explicit_http_config={"http2_protocol_options": {"connection_keepalive": _KEEPALIVE}},
                )
            },
            # One that hangs costs each request the patience above: it is left alone for a while instead.
            "outlier_detection": {
                "consecutive_5xx": _FAILURES,
                "consecutive_gateway_failure": _FAILURES,
                "enforcing_consecutive_gateway_failure": 100,
                "interval": "1s",
                "base_ejection_time": "2s",
                "max_ejection_time": "10s",
                "max_ejection_percent": 100,
            },
            # Otherwise the last one that is ejected would be asked all the same.
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "load_assignment": {
                "cluster_name": SERVICE_CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
    ]
