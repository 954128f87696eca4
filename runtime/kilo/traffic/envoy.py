"""The gateway's whole configuration, rendered from the tenant list.

How it is deployed (any Kubernetes, no control plane)::

    ConfigMap   render_files(tenants, settings)  ->  mounted as the directory /etc/envoy
    container   image envoyproxy/envoy:v1.40.0, args container_args(tenants, settings),
                env POD_IP from the field status.podIP

A change of ``bootstrap.json`` or of the arguments needs new pods (put a checksum of both on the pod
template); a change of any other file reaches running gateways by itself, within Envoy's watch of
the mounted directory, and drops no request. Mount the ConfigMap as a directory, without subPath,
which Kubernetes never updates.

The format is Envoy's v3 API in JSON. Left out: TLS, which the load balancer in front terminates,
and any control plane, since files and renames do what this needs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from kilo.errors import BadInput
from kilo.tenancy import Tenant
from kilo.traffic.clusters import render_clusters
from kilo.traffic.flags_file import FLAGS_FILE, render_flags
from kilo.traffic.global_limits import ENFORCED_KEY as GLOBAL_ENFORCED_KEY
from kilo.traffic.global_limits import render_service_cluster
from kilo.traffic.limits import ENFORCED_KEY, render_limits
from kilo.traffic.listeners import ADMIN_CLUSTER, LIMITS_FILE, ROUTES_FILE, SHARES_FILE, render_listeners
from kilo.traffic.routes import render_routes
from kilo.traffic.settings import CONFIG_DIRECTORY, GatewaySettings
from kilo.traffic.shedding import SHEDDING_KEY, render_shares
from kilo.traffic.tls import render_tls
from kilo.traffic.verification import render_key_clusters
from kilo.traffic.xds import Json, discovery, file_source, typed

BOOTSTRAP_FILE = "bootstrap.json"
# The C library's. Envoy's default, c-ares, was seen to end Envoy 1.40 on a node by a segmentation fault, in
# an event of its socket to CoreDNS while the stage came up.
_RESOLVER = {
    "name": "envoy.network.dns_resolver.getaddrinfo",
    "typed_config": typed(
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        # What was known stays in use, and is asked for again after Envoy's own interval.
        num_retries=1,
        # One name that hangs keeps no other waiting.
        num_resolver_threads=4,
    ),
}
CLUSTERS_FILE = "clusters.json"
RUNTIME_FILE = "runtime.json"
RUNTIME_LAYER = "switches"
POD_ADDRESS = "$(POD_IP)"
"""What Kubernetes expands in a container's arguments."""

CONFIG_MAP_BYTES = 1024 * 1024
"""What the values of a ConfigMap may take together: https://kubernetes.io/docs/concepts/configuration/configmap/."""

_FLUSH_MS = 1_000
"""How much of a log a gateway that is killed takes with it; by default that is ten seconds."""
_DURATIONS = "gateway.request_duration_milliseconds"
_COPIES = "cluster.shadow/"
"""How long copies take, which their clusters count."""
_LATENCY_BUCKETS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)


def render_files(tenants: Sequence[Tenant], settings: GatewaySettings) -> dict[str, str]:
    """Render every file of the gateway's ConfigMap, by file name.

    Raises:
        BadInput: there is no tenant, a tenant is listed twice or weighted to a version that is not there, or
            there are more than a ConfigMap has room for.
    """
    check_tenants(tenants)
    contents = {
        BOOTSTRAP_FILE: render_bootstrap(tenants, settings),
        CLUSTERS_FILE: render_clusters(tenants, settings),
        ROUTES_FILE: render_routes(tenants, settings),
        LIMITS_FILE: render_limits(tenants, settings),
        SHARES_FILE: render_shares(tenants, settings),
        FLAGS_FILE: render_flags(tenants, settings),
        RUNTIME_FILE: render_runtime(settings),
        **render_tls(settings),
    }
    # Without spaces, a ConfigMap has room for twice the tenants.
    files = {name: json.dumps(content, separators=(",", ":")) for name, content in contents.items()}
    if (size := sum(map(len, files.values()))) > CONFIG_MAP_BYTES:
        room = len(tenants) * CONFIG_MAP_BYTES // size
        msg = (
            f"tenants: the gateway's configuration of {len(tenants)} takes {size:,} bytes, and a ConfigMap "
            f"has room for {CONFIG_MAP_BYTES:,}, which is about {room} of them: move the others to a stage "
            "of their own (docs/daily-use.md)"
        )
        raise BadInput(msg)
    return files


def container_args(
    tenants: Sequence[Tenant], settings: GatewaySettings, bind: str = POD_ADDRESS
) -> list[str]:
    """Give the arguments of the Envoy container; ``bind`` is left to Kubernetes to expand."""
    return [
        "--config-path",
        f"{CONFIG_DIRECTORY}/{BOOTSTRAP_FILE}",
        "--config-yaml",
        json.dumps(render_address_part(tenants, settings, bind)),
        *(["--file-flush-interval-msec", str(_FLUSH_MS)] if settings.usage_log else []),
    ]


def render_bootstrap(tenants: Sequence[Tenant], settings: GatewaySettings) -> Json:
    """Render the part of the bootstrap that is the same wherever the gateway runs."""
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "dynamic_resources": {"cds_config": file_source(CLUSTERS_FILE)},
        "typed_dns_resolver_config": _RESOLVER,
        "layered_runtime": {
            "layers": [
                {
                    "name": RUNTIME_LAYER,
                    "rtds_layer": {"name": RUNTIME_LAYER, "rtds_config": file_source(RUNTIME_FILE)},
                }
            ]
        },
        "overload_manager": _overload_manager(settings),
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": prefix}, "buckets": _latency_buckets(tenants)}
                for prefix in (_DURATIONS, *((_COPIES,) if settings.features else ()))
            ]
        },
    }


def render_address_part(tenants: Sequence[Tenant], settings: GatewaySettings, bind: str) -> Json:
    """Render the part of the bootstrap that names the gateway's own addresses."""
    admin_address = {"pipe": {"path": admin_socket(bind)}}
    target = min(tenant.objective.latency_threshold_ms for tenant in tenants)
    return {
        "admin": {"address": admin_address},
        "static_resources": {
            "listeners": render_listeners(settings, target, bind),
            "clusters": [
                {
                    "name": ADMIN_CLUSTER,
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": ADMIN_CLUSTER,
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": admin_address}}]}],
                    },
                },
                *render_key_clusters(settings),
                *render_service_cluster(settings),
            ],
        },
    }


def admin_socket(bind: str = POD_ADDRESS) -> str:
    """The admin interface's abstract socket: in the pod's network namespace and in no file system."""
    return f"@kilo-gateway-{bind}"


def render_runtime(settings: GatewaySettings) -> Json:
    """Render the RTDS file: the switches that turn limits and shedding off without a new pod."""
    enforced = 100 if settings.limits_enforced else 0
    layer: Json = {ENFORCED_KEY: enforced, SHEDDING_KEY: settings.shedding_enabled}
    if settings.rate_limit_service:
        layer[GLOBAL_ENFORCED_KEY] = enforced
    return discovery(typed("envoy.service.runtime.v3.Runtime", name=RUNTIME_LAYER, layer=layer))


def _overload_manager(settings: GatewaySettings) -> Json:
    heap = "envoy.resource_monitors.fixed_heap"
    connections = "envoy.resource_monitors.global_downstream_max_connections"

    def at(share: float) -> list[Json]:
        return [{"name": heap, "threshold": {"value": share}}]

    return {
        "refresh_interval": "0.250s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": typed(
                    "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=settings.max_heap_bytes,
                ),
            },
            {
                "name": connections,
                "typed_config": typed(
                    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=settings.max_connections,
                ),
            },
        ],
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": at(0.90)},
        ],
        # Where it is known whose a request is, so that it is in its statistics. What would refuse it even
        # before, the action stop_accepting_requests, saves no memory: docs/traffic.md has the figures.
        "loadshed_points": [
            {"name": "envoy.load_shed_points.http_downstream_filter_check", "triggers": at(0.95)},
        ],
    }


def _latency_buckets(tenants: Sequence[Tenant]) -> list[float]:
    # An objective is counted exactly only at a bucket's edge.
    return sorted({*_LATENCY_BUCKETS_MS, *(tenant.objective.latency_threshold_ms for tenant in tenants)})


def check_tenants(tenants: Sequence[Tenant]) -> None:
    """Refuse a list that no gateway can be rendered from: empty, or with a tenant twice; raises BadInput."""
    if not tenants:
        msg = "tenants: empty; a gateway needs at least one"
        raise BadInput(msg)
    seen: set[str] = set()
    for tenant in tenants:
        if tenant.id in seen:
            msg = f"tenants: {tenant.id} is listed twice; an id names one tenant"
            raise BadInput(msg)
        seen.add(tenant.id)
