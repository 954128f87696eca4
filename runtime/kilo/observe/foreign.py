"""Metrics that rules and dashboards ask for and that other programs export.

Envoy's names are those of its statistics with dots turned to underscores
(https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/stats_overview); the ``gateway`` ones are made by
:mod:`kilo.traffic.listeners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Foreign:
    """A series that this project reads and does not make."""

    name: str
    labels: tuple[str, ...] = ()


_MANAGER = ("envoy_http_conn_manager_prefix",)
_CLUSTER = ("envoy_cluster_name",)

UP = Foreign("up", ("job", "namespace", "pod", "instance"))
PROCESS_START = Foreign("process_start_time_seconds")
ALERTS = Foreign("ALERTS", ("alertname", "alertstate", "severity", "tenant"))

GATEWAY_REQUESTS = Foreign("envoy_gateway_requests_total", ("tenant", "version", "status"))
GATEWAY_REFUSED = Foreign("envoy_gateway_refused_total", ("tenant", "reason"))
GATEWAY_RECEIVED_BYTES = Foreign("envoy_gateway_received_bytes_total", ("tenant",))
GATEWAY_SENT_BYTES = Foreign("envoy_gateway_sent_bytes_total", ("tenant",))
GATEWAY_DURATION_BUCKET = Foreign(
    "envoy_gateway_request_duration_milliseconds_bucket", ("tenant", "version", "le")
)
GATEWAY_DURATION_COUNT = Foreign("envoy_gateway_request_duration_milliseconds_count", ("tenant", "version"))
ENVOY_LIVE = Foreign("envoy_server_live")
ENVOY_UPTIME = Foreign("envoy_server_uptime")
ENVOY_CONCURRENCY_BLOCKED = Foreign(
    "envoy_http_adaptive_concurrency_gradient_controller_rq_blocked", _MANAGER
)
ENVOY_CONCURRENCY_LIMIT = Foreign(
    "envoy_http_adaptive_concurrency_gradient_controller_concurrency_limit", _MANAGER
)
ENVOY_ROUTES_REJECTED = Foreign("envoy_http_rds_update_rejected", (*_MANAGER, "envoy_rds_route_config"))
ENVOY_ROUTES_RELOADED = Foreign("envoy_http_rds_config_reload_time_ms", (*_MANAGER, "envoy_rds_route_config"))
ENVOY_CLUSTERS_REJECTED = Foreign("envoy_cluster_manager_cds_update_rejected")
ENVOY_LIMITS_REJECTED = Foreign("envoy_extension_config_discovery_http_filter_tenant_limits_update_rejected")
ENVOY_RUNTIME_REJECTED = Foreign("envoy_runtime_update_rejected")
ENVOY_RETRIES = Foreign("envoy_cluster_upstream_rq_retry", _CLUSTER)
ENVOY_RETRIES_REFUSED = Foreign("envoy_cluster_upstream_rq_retry_overflow", _CLUSTER)
ENVOY_LIMITS_COUNTED = Foreign("envoy_cluster_ratelimit_ok", _CLUSTER)
ENVOY_LIMITS_UNCOUNTED = Foreign("envoy_cluster_ratelimit_error", _CLUSTER)

FOREIGN: Mapping[str, Foreign] = MappingProxyType(
    {value.name: value for value in list(globals().values()) if isinstance(value, Foreign)}
)
"""Every series of another program that rules and dashboards may ask for, by name."""
