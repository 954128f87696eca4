"""The OpenTelemetry collector's configuration, rendered from the tenant list.

It takes OTLP over HTTP, refuses beyond its memory, decides about whole traces and hands them on: to any OTLP
backend, or into a file of JSON lines that ``kilo trace`` reads. It is the second line behind the guard in
each process (:mod:`kilo.observe.sampling`): what all services of a tenant send together is kept within their
allowances added up, and one service without the guard takes from its own tenant alone. Behind guards that
work it drops nothing, and what it does drop its own metrics count (``otelcol_processor_tail_sampling_*``):
weights do not.

Left out: several collectors. A trace is decided where all of it is, so one runs; a second would need a layer
that sends each trace to one place. A restart loses the traces of the last :data:`DECISION_SECONDS`.

Format: https://opentelemetry.io/docs/collector/configuration/, with the tail sampling processor of v0.161.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kilo.observe.sampling.sdk import SLOW_SECONDS, TENANT
from kilo.tenancy import Tenant

Json = dict[str, Any]

DECISION_SECONDS = 5
TRACES_DIRECTORY = "/var/lib/otelcol"
OTLP_PORT, HEALTH_PORT, METRICS_PORT = 4318, 13133, 8888
_FAILED_RATIO = 0.2


@dataclass(frozen=True)
class CollectorSettings:
    """Where traces go, and how much the collector may hold.

    Attributes:
        backend_url: an OTLP endpoint; none writes them to ``file``.
        file: a path in the collector's container.
        memory_mebibytes: of its container.
        services: that send spans, each with a tenant's allowance.
    """

    backend_url: str | None = None
    file: str = f"{TRACES_DIRECTORY}/traces.jsonl"
    memory_mebibytes: int = 256
    services: int = 3


def render_collector(
    tenants: Sequence[Tenant], settings: CollectorSettings, bind: str = "${env:POD_IP}"
) -> Json:
    """Render the whole configuration.

    Args:
        tenants: every tenant of the stage, resolved.
        settings: of the stage.
        bind: the address to listen on.
    """
    exporter: Json = (
        {"otlphttp": {"endpoint": settings.backend_url}}
        if settings.backend_url
        else {"file": {"path": settings.file, "rotation": {"max_megabytes": 64, "max_backups": 3}}}
    )
    return {
        "extensions": {"health_check": {"endpoint": f"{bind}:{HEALTH_PORT}"}},
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{bind}:{OTLP_PORT}"}}}},
        "processors": {
            # First: what can't be held is refused, and the sender's queue is where it waits.
            "memory_limiter": {
                "check_interval": "1s",
                "limit_mib": settings.memory_mebibytes * 4 // 5,
                "spike_limit_mib": settings.memory_mebibytes // 5,
            },
            "tail_sampling": {
                "decision_wait": f"{DECISION_SECONDS}s",
                "num_traces": settings.memory_mebibytes * 100,
                "policies": _policies(tenants, settings),
            },
        },
        "exporters": exporter,
        "service": {
            "extensions": ["health_check"],
            "telemetry": {
                "metrics": {
                    "readers": [{"pull": {"exporter": {"prometheus": {"host": bind, "port": METRICS_PORT}}}}]
                }
            },
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "tail_sampling"],
                    "exporters": list(exporter),
                }
            },
        },
    }


def _policies(tenants: Sequence[Tenant], settings: CollectorSettings) -> list[Json]:
    whole = sum(tenant.spans_per_second for tenant in tenants) * settings.services
    reserve = _rate("reserve", max(1, int(whole * _FAILED_RATIO)))
    found = [
        _all_of(
            "failed",
            [{"name": "error", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}, reserve],
        ),
        _all_of(
            "slow",
            [
                {"name": "long", "type": "latency", "latency": {"threshold_ms": int(SLOW_SECONDS * 1000)}},
                reserve,
            ],
        ),
    ]
    return found + [
        _all_of(
            f"tenant-{tenant.id}",
            [
                {
                    "name": "of",
                    "type": "string_attribute",
                    "string_attribute": {"key": TENANT, "values": [tenant.id]},
                },
                _rate("allowance", tenant.spans_per_second * settings.services),
            ],
        )
        for tenant in tenants
    ]


def _all_of(name: str, policies: list[Json]) -> Json:
    return {"name": name, "type": "and", "and": {"and_sub_policy": policies}}


def _rate(name: str, spans_per_second: int) -> Json:
    return {"name": name, "type": "rate_limiting", "rate_limiting": {"spans_per_second": spans_per_second}}
