"""The gateway's pods: who reaches them, whom they reach, and what needs no new pod."""

from __future__ import annotations

from components.processes.tenant_gateway import TenantGateway, TenantGatewayArgs
from kilo.tenancy import Objective, RateLimit, Tenant
from kilo.traffic.settings import GatewaySettings, Upstream
from tests.components.recorder import Recording, record
from tests.components.support import template


def tenant(name: str) -> Tenant:
    return Tenant(
        id=name,
        tier="silver",
        limit=RateLimit(requests_per_second=10, burst=20),
        timeout_ms=1_000,
        retries=1,
        objective=Objective(availability_percent=99.5, latency_threshold_ms=500, latency_percent=99),
        spans_per_second=10,
    )


def gateway(*tenants: str) -> Recording:
    return record(
        lambda: TenantGateway(
            "gateway",
            TenantGatewayArgs(
                namespace="kilo",
                image="registry.example/envoy:1.0.0",
                tenants=[tenant(name) for name in tenants],
                settings=GatewaySettings(stable=Upstream(host="ingest", port=10_081)),
                upstreams=["ingest"],
                monitoring_namespace="monitoring",
            ),
        )
    )


def test_a_new_tenant_reaches_running_gateways_without_a_new_pod() -> None:
    before, after = gateway("acme"), gateway("acme", "globex")
    config_map = "kubernetes:core/v1:ConfigMap"
    assert before.one(config_map).inputs["data"] != after.one(config_map).inputs["data"]
    assert template(before) == template(after)


def test_the_gateway_admits_the_world_and_reaches_its_services_alone() -> None:
    spec = gateway("acme").one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    entrance = [rule for rule in spec["ingress"] if "from" not in rule]
    assert [rule["ports"][0]["port"] for rule in entrance] == [10_080]
    peers = [rule["to"][0] for rule in spec["egress"][1:]]
    assert peers == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "ingest"}}}]
