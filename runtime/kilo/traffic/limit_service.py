"""What the rate limit service and its store are started with, where the stage deploys them.

The service (https://github.com/envoyproxy/ratelimit) knows one domain and no tenant: gateways bring a
tenant's limit with each request (``global_limits.py``), so a changed limit needs no change here. Each count
lives for its second in the store, which therefore keeps nothing on a disk.
"""

from __future__ import annotations

from kilo.traffic.limits import DOMAIN

SERVICE_PORT = 8081
HEALTH_PORT = 8080
METRICS_PORT = 9102
STORE_PORT = 6379
CONFIG_DIRECTORY = "/etc/ratelimit/config"
METRICS_DIRECTORY = "/etc/ratelimit/metrics"
_MAPPING_FILE = "mapping.yaml"
_DEBUG_PORT = 6070
_CONNECTION_SECONDS = 60
"""After which a gateway's connection is made anew, so that a service that came later gets its part."""

# The service counts by tenant too, six series each: gateways tell the same (docs/traffic.md).
_MAPPING = r"""mappings:
  - match: 'ratelimit\.service\.rate_limit\..*'
    match_type: regex
    action: drop
    name: dropped
  - match: ratelimit.service.call.should_rate_limit.*
    match_metric_type: counter
    name: ratelimit_service_should_rate_limit_error
    labels: { err_type: $1 }
  - match: ratelimit_server.*.total_requests
    match_metric_type: counter
    name: ratelimit_service_total_requests
    labels: { grpc_method: $1 }
  - match: ratelimit_server.*.response_time
    timer_type: histogram
    name: ratelimit_service_response_time_seconds
    labels: { grpc_method: $1 }
"""


def render_config(domain: str = DOMAIN) -> dict[str, str]:
    """Render the service's configuration, by file name, for :data:`CONFIG_DIRECTORY`."""
    return {"kilo.yaml": f"domain: {domain}\n"}


def render_mapping() -> dict[str, str]:
    """Render what becomes of its statistics in Prometheus, for :data:`METRICS_DIRECTORY`."""
    return {_MAPPING_FILE: _MAPPING}


def service_environment(bind: str, store: str) -> dict[str, str]:
    """Give the service's whole configuration that is no file.

    ``bind`` is the address that it listens on, ``store`` the store's, with its port.
    """
    return {
        "GRPC_HOST": bind,
        "GRPC_PORT": str(SERVICE_PORT),
        "GRPC_MAX_CONNECTION_AGE": f"{_CONNECTION_SECONDS}s",
        "HOST": bind,
        "PORT": str(HEALTH_PORT),
        # It can't be switched off; no network policy opens it.
        "DEBUG_HOST": bind,
        "DEBUG_PORT": str(_DEBUG_PORT),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "warn",
        "RUNTIME_ROOT": CONFIG_DIRECTORY,
        "RUNTIME_APPDIRECTORY": ".",
        # A ConfigMap's mount has files of Kubernetes' own, whose names begin with a dot.
        "RUNTIME_IGNOREDOTFILES": "true",
        "RUNTIME_WATCH_ROOT": "false",
        # Without its domain it would count nothing and say that all is well.
        "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": "true",
        # By which a gateway knows that the service has answered.
        "RESPONSE_DYNAMIC_METADATA": "true",
        "BACKEND_TYPE": "redis",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": store,
        # Counts of a second would stay for five minutes otherwise.
        "EXPIRATION_JITTER_MAX_SECONDS": "0",
        "USE_STATSD": "false",
        "USE_PROMETHEUS": "true",
        "PROMETHEUS_ADDR": f"{bind}:{METRICS_PORT}",
        "PROMETHEUS_MAPPER_YAML": f"{METRICS_DIRECTORY}/{_MAPPING_FILE}",
    }


def store_arguments(bind: str, port: int = STORE_PORT, megabytes: int = 64) -> list[str]:
    """Give the store's command line: nothing on a disk, and no more memory than ``megabytes``."""
    return [
        *("--bind", bind, "--port", str(port)),
        *("--save", "", "--appendonly", "no"),
        # It would refuse whoever comes without a password; who comes at all, the network policy says.
        *("--protected-mode", "no"),
        # A title would be written over its environment, by which the sandbox finds its processes.
        *("--set-proc-title", "no"),
        *("--maxmemory", f"{megabytes}mb", "--maxmemory-policy", "volatile-ttl"),
    ]
