"""What the gateway needs to know besides the tenants: addresses, ports and ceilings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kilo.tenancy import FeatureId, TierName
from kilo.traffic.features import FeatureRoutes
from kilo.traffic.identity import Identity, TesterAccess, Tls

CONFIG_DIRECTORY = "/etc/envoy"
"""Where the ConfigMap with every rendered file is mounted, as one directory."""


class Upstream(BaseModel):
    """A service that takes the gateway's traffic, by name and port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        min_length=1, description="DNS name or address; a headless Service spreads load over its pods."
    )
    port: int = Field(ge=1, le=65_535)


class GatewayFeature(BaseModel):
    """A feature: which requests belong to it, and the next version that answers a tenant's share of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: FeatureId
    routes: FeatureRoutes = FeatureRoutes()
    next: Upstream


class TierTraffic(BaseModel):
    """How the gateway treats a tier's requests, beside what the tier promises."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retry_budget_percent: int = Field(
        default=20, ge=1, le=100, description="Of the requests in flight, how many may be retries."
    )
    max_concurrent_requests: int | None = Field(
        default=None, ge=1, description="To each version; without it, the gateway's."
    )
    eject_after_failures: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="A pod that failed so many requests on end gets none for half a minute.",
    )
    hedge_reads_after_ms: int | None = Field(
        default=None,
        ge=1,
        le=60_000,
        description="After so long a GET or HEAD is asked a second time, and the first answer counts.",
    )


class GatewaySettings(BaseModel):
    """Settings of one gateway. Everything per tenant comes from the tenant list instead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tier(self, name: TierName) -> TierTraffic:
        """What is set for a tier, or what all have that say nothing."""
        return self.tiers.get(name, TierTraffic())

    stable: Upstream
    next: Upstream | None = Field(
        default=None, description="The version under trial; tenants' weights point to it."
    )
    features: tuple[GatewayFeature, ...] = Field(
        default=(), description="Parts of the service with a next version of their own."
    )
    listener_port: int = Field(default=10080, ge=1, le=65_535)
    operations_port: int = Field(
        default=10090, ge=1, le=65_535, description="/livez, /readyz, /metrics, /config_dump."
    )
    drain_port: int = Field(
        default=10092, ge=1, le=65_535, description="/drain, before a gateway stops; for the kubelet alone."
    )
    drain_seconds: int = Field(
        default=15, ge=1, le=300, description="How long a gateway that is to stop goes on answering."
    )
    tenant_header: str = "x-tenant-id"
    identity: Identity | None = Field(
        default=None, description="Where the tenant comes from; without it, its header is believed."
    )
    testers: TesterAccess | None = Field(
        default=None, description="Who sees the next version by asking for it."
    )
    tls: Tls | None = Field(default=None, description="Without it, TLS ends in front of the gateway.")
    rate_limit_service: Upstream | None = Field(
        default=None, description="Counts limits over all gateways; without it, each has an equal part."
    )
    ca_file: str = Field(
        default="/etc/ssl/certs/ca-certificates.crt", description="Whom the gateway trusts in TLS, PEM."
    )
    api_prefix: str = Field(
        default="/v1/",
        pattern=r"^/([A-Za-z0-9._~-]+/)*$",
        description="What of the services is reached from outside; their metrics and probes are not.",
    )
    sticky_header: str = Field(
        default="idempotency-key", description="Requests with the same value go to the same version."
    )
    replicas: int = Field(default=1, ge=1, description="Gateways that share each tenant's limit equally.")
    capacity_requests_per_second: int | None = Field(
        default=None,
        ge=1,
        description="Of the stage, shared fairly; without it everybody's limit is its share.",
    )
    docs_url: str = Field(
        default="https://github.com/kilo-platform/kilo/blob/main/docs/traffic.md",
        description="What refusals point to.",
    )
    tiers: dict[TierName, TierTraffic] = Field(
        default_factory=dict[TierName, TierTraffic], description="What is different for a tier."
    )
    limits_enforced: bool = Field(
        default=True, description="False lets every tenant through and still counts."
    )
    shedding_enabled: bool = Field(default=True, description="Adaptive concurrency; False switches it off.")
    min_concurrent_requests: int = Field(
        default=64, ge=1, description="Adaptive concurrency never goes below."
    )
    max_concurrent_requests: int = Field(default=1024, ge=1, description="Per tier and version.")
    max_connections: int = Field(
        default=20_000, ge=1, description="Clients' connections that one gateway accepts."
    )
    max_heap_bytes: int = Field(
        default=1_000_000_000, ge=100_000_000, description="Above it, requests are shed."
    )
    usage_log: str | None = Field(
        default=None, description="A file of which usage is made, an entry a request; none without it."
    )
    upstream_idle_timeout_ms: int = Field(
        default=4_000, ge=100, description="Below the upstream's own, or a reused connection meets its close."
    )
