"""What counts tenants' limits over all gateways: deployed here, or one that is there already."""

from __future__ import annotations

import pulumi

from components.processes.rate_limits import RateLimits, RateLimitsArgs
from infra import names
from infra.setting_types import DEPLOYED
from infra.settings import Settings
from kilo.traffic.features import NextService
from kilo.traffic.limit_service import SERVICE_PORT

_REPLICAS = 2
"""Either does the work of both; the other one is there while a node is drained."""


def rate_limit_service(settings: Settings) -> NextService | None:
    """Which service gateways ask; none where each has an equal part."""
    service = settings.gateway.rate_limit_service
    if service == DEPLOYED:
        return NextService(name=names.RATE_LIMITS, namespace=settings.namespace, port=SERVICE_PORT)
    return service


def create_rate_limits(settings: Settings, opts: pulumi.ResourceOptions) -> None:
    """Register the service and its store, if the stage deploys them."""
    if settings.gateway.rate_limit_service != DEPLOYED:
        return
    RateLimits(
        names.RATE_LIMITS,
        RateLimitsArgs(
            namespace=settings.namespace,
            image=settings.images.rate_limits,
            store_image=settings.images.rate_limits_store,
            replicas=_REPLICAS,
            gateway=names.GATEWAY,
            monitoring_namespace=settings.monitoring.namespace,
        ),
        opts,
    )
