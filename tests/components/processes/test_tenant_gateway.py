"""The gateway's pods: who reaches them, whom they reach, and what needs no new pod."""

from __future__ import annotations

from typing import Any

from components.processes.tenant_gateway import TenantGateway, TenantGatewayArgs
from kilo.tenancy import Objective, RateLimit, Tenant
from kilo.traffic.identity import Identity
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


def gateway(*tenants: str, **settings: Any) -> Recording:
    return record(
        lambda: TenantGateway(
            "gateway",
            TenantGatewayArgs(
                namespace="kilo",
                image="registry.example/envoy:1.0.0",
                tenants=[tenant(name) for name in tenants],
                settings=GatewaySettings(stable=Upstream(host="ingest", port=10_081), **settings),
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


def test_a_gateway_drains_before_it_stops_and_only_the_kubelet_can_ask_for_it() -> None:
    recording = gateway("acme", drain_seconds=20)
    spec = template(recording)["spec"]
    (container,) = spec["containers"]
    assert container["lifecycle"] == {"preStop": {"httpGet": {"path": "/drain", "port": "drain"}}}
    assert spec["terminationGracePeriodSeconds"] > 20
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == "drain")
    policy = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    assert port not in {of["port"] for rule in policy["ingress"] for of in rule["ports"]}


def test_the_gateway_admits_the_world_and_reaches_its_services_alone() -> None:
    spec = gateway("acme").one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    entrance = [rule for rule in spec["ingress"] if "from" not in rule]
    assert [rule["ports"][0]["port"] for rule in entrance] == [10_080]
    peers = [rule["to"][0] for rule in spec["egress"][1:]]
    assert peers == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "ingest"}}}]


def test_keys_of_tokens_are_fetched_from_outside_on_their_port_alone() -> None:
    identity = Identity.model_validate(
        {"jwt": {"issuer": "i", "audience": "a", "jwks_url": "https://id.example.com:8443/keys"}}
    )
    spec = (
        gateway("acme", identity=identity).one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    )
    outside = [rule for rule in spec["egress"] if "ipBlock" in rule["to"][0]]
    assert [rule["ports"][0]["port"] for rule in outside] == [8443]
