"""The rate limit service and its store: who reaches whom, what is probed, what is measured."""

from __future__ import annotations

from typing import Any

from components.processes.rate_limits import RateLimits, RateLimitsArgs
from tests.components.recorder import Recording, record
from tests.components.support import DEPLOYMENT

POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
NAME = "app.kubernetes.io/name"


def deployed() -> Recording:
    return record(
        lambda: RateLimits(
            "rate-limits",
            RateLimitsArgs(
                namespace="kilo",
                image="registry.example/ratelimit:1",
                store_image="registry.example/valkey:1",
                replicas=2,
                gateway="gateway",
                monitoring_namespace="monitoring",
            ),
        )
    )


def container(name: str) -> dict[str, Any]:
    (found,) = deployed().one(DEPLOYMENT, name).inputs["spec"]["template"]["spec"]["containers"]
    return found


def reached_by(name: str) -> dict[int, Any]:
    spec = deployed().one(POLICY, name).inputs["spec"]
    return {rule["ports"][0]["port"]: rule["from"][0] for rule in spec["ingress"]}


def test_gateways_alone_reach_the_service_and_the_service_alone_its_store() -> None:
    grpc, metrics = (
        {"podSelector": {"matchLabels": {NAME: "gateway"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    )
    assert reached_by("rate-limits") == {8081: grpc, 9102: metrics}
    assert reached_by("rate-limits-store") == {6379: {"podSelector": {"matchLabels": {NAME: "rate-limits"}}}}
    egress = deployed().one(POLICY, "rate-limits").inputs["spec"]["egress"]
    # Beside names of the cluster, its store.
    assert [rule["to"][0] for rule in egress[1:]] == [
        {"podSelector": {"matchLabels": {NAME: "rate-limits-store"}}}
    ]
    assert len(deployed().one(POLICY, "rate-limits-store").inputs["spec"]["egress"]) == 1


def test_what_pods_are_scraped_by_is_the_service_s_metrics() -> None:
    ports = {port["name"]: port["containerPort"] for port in container("rate-limits")["ports"]}
    assert ports["http"] == 9102


def test_both_are_probed_and_a_store_is_alive_when_it_answers() -> None:
    assert container("rate-limits")["livenessProbe"]["httpGet"] == {"path": "/healthcheck", "port": "health"}
    store = container("rate-limits-store")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert "ping" in store[probe]["exec"]["command"][-1]
        assert "httpGet" not in store[probe]


def test_a_drained_node_takes_one_pod_of_them_at_a_time() -> None:
    budgets = deployed().of("kubernetes:policy/v1:PodDisruptionBudget")
    assert [budget.inputs["spec"]["maxUnavailable"] for budget in budgets] == [1, 1]
    assert deployed().one(DEPLOYMENT, "rate-limits").inputs["spec"]["replicas"] == 2


def test_the_store_keeps_nothing() -> None:
    spec = deployed().one(DEPLOYMENT, "rate-limits-store").inputs["spec"]["template"]["spec"]
    assert not spec.get("volumes")
    arguments = spec["containers"][0]["args"]
    assert arguments[arguments.index("--save") + 1] == ""
