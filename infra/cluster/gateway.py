"""The entrance: Envoy with every tenant's routes, weights and limits."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.pods.labels import service_host
from components.processes.ingest import PORT as INGEST_PORT
from components.processes.tenant_gateway import TenantGateway, TenantGatewayArgs
from components.processes.usage import LOG_FILE, CollectorArgs
from infra import names
from infra.cluster.database import database_address
from infra.cluster.rate_limits import rate_limit_service
from infra.settings import Settings
from kilo.traffic.features import NextService
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream


def create_gateway(
    settings: Settings,
    upstreams: Sequence[str],
    opts: pulumi.ResourceOptions,
) -> None:
    """Register the gateway of the tenants that accept requests, in front of the workloads ``upstreams``."""
    counter = rate_limit_service(settings)
    TenantGateway(
        names.GATEWAY,
        TenantGatewayArgs(
            namespace=settings.namespace,
            image=settings.images.envoy,
            tenants=[tenant for tenant in settings.resolved_tenants if tenant.accepting],
            settings=_gateway_settings(settings),
            upstreams=upstreams,
            services=[
                *(feature.next.service for feature in settings.features if feature.next.service),
                *([counter] if counter else []),
            ],
            monitoring_namespace=settings.monitoring.namespace,
            usage=CollectorArgs(
                settings.images.runtime,
                settings.database.network,
                database_address(settings.database),
                settings.database.credentials.generation,
            )
            if settings.usage
            else None,
        ),
        opts,
    )


def _gateway_settings(settings: Settings) -> GatewaySettings:
    """What Envoy is rendered from, besides the tenants."""

    def upstream(workload: str) -> Upstream:
        return Upstream(host=service_host(workload, settings.namespace), port=INGEST_PORT)

    counter = rate_limit_service(settings)
    return GatewaySettings(
        stable=upstream(names.INGEST),
        next=upstream(names.INGEST_NEXT) if settings.ingest.next_image else None,
        features=tuple(
            GatewayFeature(
                id=feature.id,
                routes=feature.routes,
                next=upstream(names.feature(feature.id))
                if feature.next.service is None
                else _upstream(feature.next.service),
            )
            for feature in settings.features
        ),
        tenant_header=settings.gateway.tenant_header,
        identity=settings.gateway.identity,
        testers=settings.gateway.testers,
        tls=settings.gateway.tls,
        rate_limit_service=_upstream(counter) if counter else None,
        replicas=settings.gateway.replicas,
        capacity_requests_per_second=settings.gateway.capacity_requests_per_second,
        tiers=settings.gateway.tiers,
        limits_enforced=settings.gateway.limits_enforced,
        shedding_enabled=settings.gateway.shedding_enabled,
        usage_log=LOG_FILE if settings.usage else None,
    )


def _upstream(service: NextService) -> Upstream:
    return Upstream(host=service.host, port=service.port)
