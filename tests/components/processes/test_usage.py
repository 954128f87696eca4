"""The collector beside a gateway: it shares a directory, reaches the database, and holds no gateway up."""

from __future__ import annotations

from typing import Any

from components.processes.tenant_gateway import TenantGateway, TenantGatewayArgs
from components.processes.usage import LOG_DIRECTORY, LOG_FILE, CollectorArgs
from kilo.traffic.settings import GatewaySettings, Upstream
from tests.components.processes.test_tenant_gateway import gateway, tenant
from tests.components.recorder import Recording, record
from tests.components.support import DATABASE, template


def collected(*tenants: str) -> Recording:
    return record(
        lambda: TenantGateway(
            "gateway",
            TenantGatewayArgs(
                namespace="kilo",
                image="registry.example/envoy:1.0.0",
                tenants=[tenant(name) for name in tenants],
                settings=GatewaySettings(stable=Upstream(host="ingest", port=10_081), usage_log=LOG_FILE),
                upstreams=["ingest"],
                monitoring_namespace="monitoring",
                usage=CollectorArgs("registry.example/kilo:1.0.0", "10.0.0.0/8", DATABASE),
            ),
        )
    )


def spec_of(recording: Recording) -> dict[str, Any]:
    return template(recording)["spec"]


def test_a_stage_without_usage_has_the_pod_that_it_had() -> None:
    spec = spec_of(gateway("acme"))
    assert not spec.get("initContainers")
    assert [volume["name"] for volume in spec["volumes"]] == ["files-0"]
    assert "--file-flush-interval-msec" not in spec["containers"][0]["args"]


def test_gateway_and_collector_have_one_directory() -> None:
    spec = spec_of(collected("acme"))
    (collector,), (envoy,) = spec["initContainers"], spec["containers"]
    mounts = [
        {mount["name"] for mount in each["volumeMounts"] if mount["mountPath"] == LOG_DIRECTORY}
        for each in (collector, envoy)
    ]
    assert mounts == [{"usage-log"}, {"usage-log"}]
    assert [volume["name"] for volume in spec["volumes"]].count("usage-log") == 1
    assert collector["restartPolicy"] == "Always"
    assert LOG_FILE in collector["args"]


def test_a_gateway_serves_whatever_its_collector_does() -> None:
    (collector,) = spec_of(collected("acme"))["initContainers"]
    assert not any(collector.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness"))


def test_a_new_tenant_reaches_running_gateways_without_a_new_pod() -> None:
    assert template(collected("acme")) == template(collected("acme", "globex"))


def test_the_collector_reaches_the_database_alone() -> None:
    spec = collected("acme").one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    outside = [rule for rule in spec["egress"] if "ipBlock" in rule["to"][0]]
    assert [(rule["to"][0]["ipBlock"]["cidr"], rule["ports"][0]["port"]) for rule in outside] == [
        ("10.0.0.0/8", 5433)
    ]
