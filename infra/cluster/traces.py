"""Where spans go: the collector, if the stage has one, and its address for whoever sends."""

from __future__ import annotations

import pulumi

from components.pods.labels import service_host
from components.processes.trace_collector import TraceCollector, TraceCollectorArgs
from infra import names
from infra.settings import Settings
from kilo.observe.collector import OTLP_PORT, CollectorSettings


def collector_url(settings: Settings) -> str | None:
    """Where processes send their spans; none where the stage has no collector."""
    if settings.monitoring.traces is None:
        return None
    return f"http://{service_host(names.COLLECTOR, settings.namespace)}:{OTLP_PORT}"


def create_traces(settings: Settings, opts: pulumi.ResourceOptions) -> None:
    """Register the collector, if the stage has one."""
    traces = settings.monitoring.traces
    if traces is None:
        return
    TraceCollector(
        names.COLLECTOR,
        TraceCollectorArgs(
            namespace=settings.namespace,
            image=settings.images.collector,
            tenants=settings.resolved_tenants,
            settings=CollectorSettings(backend_url=traces.backend_url, services=len(names.SPAN_SENDERS)),
            senders=names.SPAN_SENDERS,
            monitoring_namespace=settings.monitoring.namespace,
        ),
        opts,
    )
