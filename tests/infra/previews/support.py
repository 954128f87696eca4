"""A preview's settings as ``kilo preview up`` would make them, without a service or a chart."""

from __future__ import annotations

from typing import Any

from infra.previews.settings import PreviewSettings
from kilo.tenancy import TenantEntry, TierPolicy

IMAGE = "sandbox.invalid/orders@sha256:" + "a" * 64
_POLICY = {
    "limit": {"requests_per_second": 10, "burst": 20},
    "timeout_ms": 1_000,
    "retries": 1,
    "objective": {"availability_percent": 99.0, "latency_threshold_ms": 500, "latency_percent": 95.0},
    "spans_per_second": 10,
}


def settings(**changes: Any) -> PreviewSettings:
    """A preview of an HTTP service."""
    tenant = TenantEntry(id="preview", tier="silver").resolve(TierPolicy.model_validate(_POLICY))
    document: dict[str, Any] = {
        "name": "pr-12-orders",
        "pull_request": 12,
        "stage": "dev",
        "service": "orders",
        "kind": "http",
        "has_database": True,
        "announces": True,
        "image": IMAGE,
        "port": 8_080,
        "expires_at": "2026-03-01T10:00:00+01:00",
        "tenant": tenant,
        "tenant_header": "x-tenant-id",
        "images": {"runtime": "kilo:1", "nats": "nats:2", "envoy": "envoyproxy/envoy:v1"},
        "aws_region": "eu-central-1",
        "monitoring_namespace": "monitoring",
        "prometheus_url": "http://prometheus.invalid",
        "objects": [],
        **changes,
    }
    return PreviewSettings.model_validate(document)
