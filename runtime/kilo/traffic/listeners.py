"""Listeners: the entrance for tenants, a small one for operations, and one that drains (``draining.py``).

The operations listener lets through four GET paths of Envoy's admin interface (``/livez``,
``/readyz``, ``/metrics``, ``/config_dump``) and nothing else. The admin interface itself, which can stop the
process, listens on an abstract Unix socket that only the pod reaches.

The listeners bind to the pod's own address. Configuration files know no environment, so they are
given on the command line, where Kubernetes expands ``$(POD_IP)``; all that changes while the
gateway runs (routes, clusters, limits) is in files, and no such change touches a listener.
"""

from __future__ import annotations

from kilo.traffic.draining import render_drain_manager
from kilo.traffic.global_limits import render_global_filters
from kilo.traffic.limits import LIMITS, LIMITS_TYPE
from kilo.traffic.problems import render_local_replies
from kilo.traffic.routes import ROUTES, TENANT_STATE, render_state_filter
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.shedding import SHARES, render_shedding
from kilo.traffic.tls import render_transport
from kilo.traffic.verification import render_early_mutation, render_verification
from kilo.traffic.xds import METADATA, Json, file_source, typed
from kilo.usage.entries import render_entry

ROUTES_FILE = "routes.json"
LIMITS_FILE = "limits.json"
SHARES_FILE = "shares.json"
ADMIN_CLUSTER = "admin"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_STATISTICS = "envoy.extensions.access_loggers.stats.v3.Config"
_SCOPE: Json = {"stats_scope": {"prefix": "gateway"}}
# The field is mandatory; a key that no runtime layer sets leaves the default.
_NO_RUNTIME = {"runtime_key": "gateway.unused"}
_FEATURE = f"%METADATA(ROUTE:{METADATA}:feature)%"
_TENANT = f"%FILTER_STATE({TENANT_STATE}:PLAIN)%"
_VERSION = f"%METADATA(CLUSTER:{METADATA}:version)%"


def render_listeners(settings: GatewaySettings, target_latency_ms: int, bind: str) -> list[Json]:
    """Render the listeners, bound to ``bind``.

    ``target_latency_ms`` is the latency that adaptive concurrency defends: above it, fewer requests
    are let through.
    """
    return [
        _listener(
            "tenants",
            bind,
            settings.listener_port,
            _tenants_manager(settings, target_latency_ms),
            render_transport(settings),
        ),
        # Probes and metrics answer under overload too: then they matter most.
        {
            **_listener("operations", bind, settings.operations_port, _operations_manager()),
            "bypass_overload_manager": True,
            "ignore_global_conn_limit": True,
        },
        {
            **_listener("drain", bind, settings.drain_port, render_drain_manager(settings, ADMIN_CLUSTER)),
            "bypass_overload_manager": True,
            "ignore_global_conn_limit": True,
        },
    ]


def _listener(name: str, bind: str, port: int, manager: Json, transport: Json | None = None) -> Json:
    return {
        "name": name,
        "address": {"socket_address": {"address": bind, "port_value": port}},
        # A request is retried from its buffered body: beyond this size it is not retried.
        "per_connection_buffer_limit_bytes": 1_048_576,
        "filter_chains": [
            {
                **(transport or {}),
                "filters": [
                    {
                        "name": "http",
                        "typed_config": typed(_MANAGER, stat_prefix=name, **manager),
                    }
                ],
            }
        ],
    }


def _tenants_manager(settings: GatewaySettings, target_latency_ms: int) -> Json:
    return {
        "rds": {"route_config_name": ROUTES, "config_source": file_source(ROUTES_FILE)},
        # Clients are outside: what they send in x-envoy-* headers must not change timeouts or retries.
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "stream_idle_timeout": "60s",
        "request_headers_timeout": "10s",
        # All of a request, its body too: who sends it byte by byte holds on to a service as well.
        "request_timeout": "60s",
        # What Envoy advises at an edge: a client can't make a gateway keep much for it.
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "common_http_protocol_options": {
            "idle_timeout": "60s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "early_header_mutation_extensions": render_early_mutation(settings),
        "local_reply_config": render_local_replies(settings),
        "access_log": [
            _access_log(),
            *_usage_log(settings.usage_log),
            *_statistics(by_feature=bool(settings.features)),
        ],
        "http_filters": [
            # First, so that it is the last to see an answer: what the limits say stands there then.
            _rate_limit_headers(),
            *render_verification(settings),
            render_state_filter(),
            *render_global_filters(settings),
            {
                "name": LIMITS,
                "config_discovery": {
                    "config_source": file_source(LIMITS_FILE),
                    "type_urls": [f"type.googleapis.com/{LIMITS_TYPE}"],
                },
            },
            {
                "name": SHARES,
                "config_discovery": {
                    "config_source": file_source(SHARES_FILE),
                    "type_urls": [f"type.googleapis.com/{LIMITS_TYPE}"],
                },
            },
            # Behind the limits: what they refuse at once must not pass for a fast answer.
            render_shedding(settings, target_latency_ms),
            _router(),
        ],
    }


def _rate_limit_headers() -> Json:
    """Say a tenant's limit in the fields of draft-ietf-httpapi-ratelimit-headers-10 too."""

    def field(name: str, value: str) -> Json:
        return {
            "append": {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        }

    left, seconds = "%RESPONSE_HEADER(X-RATELIMIT-REMAINING)%", "%RESPONSE_HEADER(X-RATELIMIT-RESET)%"
    return {
        "name": "rate-limit-headers",
        "typed_config": typed(
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={
                "response_mutations": [
                    field("ratelimit-policy", f'"tenant";%METADATA(ROUTE:{METADATA}:policy)%'),
                    field("ratelimit", f'"tenant";r={left};t={seconds}'),
                ]
            },
        ),
    }


def _operations_manager() -> Json:
    def admin(path: str, rewrite: str | None = None) -> Json:
        route: Json = {"cluster": ADMIN_CLUSTER, "timeout": "5s"}
        if rewrite is not None:
            route["prefix_rewrite"] = rewrite
        return {"match": {**_get(path)}, "route": route}

    return {
        "route_config": {
            "name": "operations",
            "virtual_hosts": [
                {
                    "name": "operations",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": _get("/livez"),
                            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
                        },
                        admin("/readyz", "/ready"),
                        admin("/metrics", "/stats/prometheus"),
                        admin("/config_dump"),
                    ],
                }
            ],
        },
        "normalize_path": True,
        "http_filters": [_router()],
    }


def _get(path: str) -> Json:
    return {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}


def _router() -> Json:
    return {
        "name": "router",
        "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
    }


def _access_log() -> Json:
    return {
        "name": "stdout",
        "typed_config": typed(
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            log_format={
                "json_format": {
                    "time": "%START_TIME%",
                    "tenant": _TENANT,
                    "version": _VERSION,
                    "method": "%REQUEST_HEADER(:METHOD)%",
                    # Without the query, which may hold what must not be logged.
                    "path": "%PATH(NQ):256%",
                    "status": "%RESPONSE_CODE%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "flags": "%RESPONSE_FLAGS%",
                    "duration_ms": "%DURATION%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "request_id": "%REQUEST_HEADER(X-REQUEST-ID):64%",
                    "traceparent": "%REQUEST_HEADER(TRACEPARENT):64%",
                }
            },
        ),
    }


def _usage_log(file: str | None) -> list[Json]:
    """A file of its own, which names nobody; see :mod:`kilo.usage.entries`."""
    if file is None:
        return []
    written = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=file,
        log_format={"json_format": render_entry(_TENANT, _VERSION)},
    )
    return [{"name": "usage", "typed_config": written}]


def _statistics(*, by_feature: bool) -> list[Json]:
    """Count requests by tenant, version and status, whoever answered: the gateway or a service."""
    tags = [{"name": "tenant", "value_format": _TENANT}, {"name": "version", "value_format": _VERSION}]
    if by_feature:
        tags.append({"name": "feature", "value_format": _FEATURE})
    status = {"name": "status", "value_format": "%RESPONSE_CODE%"}
    counters = [
        {"stat": {"name": "requests_total", "tags": [*tags, status]}, "value_fixed": 1},
        {"stat": {"name": "received_bytes_total", "tags": tags[:1]}, "value_format": "%BYTES_RECEIVED%"},
        {"stat": {"name": "sent_bytes_total", "tags": tags[:1]}, "value_format": "%BYTES_SENT%"},
    ]
    durations = {
        "stat": {"name": "request_duration_milliseconds", "tags": tags},
        "unit": "Milliseconds",
        "value_format": "%DURATION%",
    }
    # A refusal is quick: counted among the answers, it would hide that those have become slow.
    refused = {
        "stat": {
            "name": "refused_total",
            "tags": [tags[0], {"name": "reason", "value_format": "%RESPONSE_CODE_DETAILS%"}],
        },
        "value_fixed": 1,
    }
    return [
        {"name": "counters", "typed_config": typed(_STATISTICS, **_SCOPE, counters=counters)},
        {
            "name": "refusals",
            "filter": _status("EQ", 429),
            "typed_config": typed(_STATISTICS, **_SCOPE, counters=[refused]),
        },
        {
            "name": "durations",
            "filter": _status("NE", 429),
            "typed_config": typed(_STATISTICS, **_SCOPE, histograms=[durations]),
        },
    ]


def _status(comparison: str, status: int) -> Json:
    value = {"default_value": status, **_NO_RUNTIME}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}
