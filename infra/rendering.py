"""What the settings mean to the renderers of ``runtime``: one function a rendered file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.ingest import PORT as INGEST_PORT
from components.labels import service_host
from infra import names
from infra.settings import Settings
from runtime.observe.rules import render_rules
from runtime.traffic.settings import GatewaySettings, Upstream


def gateway_settings(settings: Settings) -> GatewaySettings:
    """What Envoy is rendered from, besides the tenants."""

    def upstream(workload: str) -> Upstream:
        return Upstream(host=service_host(workload, settings.namespace), port=INGEST_PORT)

    return GatewaySettings(
        stable=upstream(names.INGEST),
        next=upstream(names.INGEST_NEXT) if settings.ingest.next_image else None,
        tenant_header=settings.gateway.tenant_header,
        replicas=settings.gateway.replicas,
    )


def nats_config(settings: Settings) -> str:
    """``nats.conf``."""
    return f'http_port: 8222\njetstream {{ store_dir: "/data", max_file: {settings.bus.storage_gib}GiB }}\n'


def streams_arguments(settings: Settings) -> list[str]:
    """The command line that declares the streams."""
    return ["bus", "apply", "--replicas", str(settings.bus.replicas)]


def debezium_properties(settings: Settings) -> str:
    """``application.properties``."""
    return f"# {settings.stage}\n"


def alert_rules(settings: Settings) -> Mapping[str, Any]:
    """The spec of the PrometheusRule."""
    return render_rules(settings.resolved_tenants)


def dashboards(settings: Settings) -> Mapping[str, str]:
    """Dashboards by file name."""
    return {}
