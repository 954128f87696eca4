"""The collector's pod: who sends to it, and what replaces it."""

from __future__ import annotations

import json

from components.processes.trace_collector import TraceCollector, TraceCollectorArgs
from kilo.observe.collector import CollectorSettings
from tests.components.processes.test_tenant_gateway import tenant
from tests.components.recorder import Recording, record
from tests.components.support import template


def collector(*tenants: str, backend_url: str | None = None) -> Recording:
    return record(
        lambda: TraceCollector(
            "otel-collector",
            TraceCollectorArgs(
                namespace="kilo",
                image="registry.example/otelcol:0.161.0",
                tenants=[tenant(name) for name in tenants],
                settings=CollectorSettings(backend_url=backend_url),
                senders=["ingest", "consumer"],
                monitoring_namespace="monitoring",
            ),
        )
    )


def test_a_change_of_its_configuration_replaces_its_pod() -> None:
    one, two = (template(collector(*names)) for names in (("acme",), ("acme", "globex")))
    assert one["metadata"]["annotations"] != two["metadata"]["annotations"]


def test_it_reaches_outside_only_for_a_backend() -> None:
    alone = json.dumps(collector("acme").one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs)
    sending = json.dumps(
        collector("acme", backend_url="https://otlp.example")
        .one("kubernetes:networking.k8s.io/v1:NetworkPolicy")
        .inputs
    )
    assert "0.0.0.0/0" not in alone
    assert "0.0.0.0/0" in sending
    for text in (alone, sending):
        assert "ingest" in text
        assert "4318" in text
