"""The file of promises, and the series that a process makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kilo.errors import BadInput
from kilo.slo.exporter import ObjectiveCollector
from kilo.slo.objectives import error_budget, read_objectives, render_objectives
from tests.runtime.observe.support import TENANTS, make_tenant


def exported(path: Path) -> str:
    registry = CollectorRegistry()
    registry.register(ObjectiveCollector(path))
    return generate_latest(registry).decode()


def test_every_promise_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "objectives.json"
    path.write_text(render_objectives(TENANTS), encoding="utf-8")
    text = exported(path)
    assert 'tenant_objective_budget_ratio{objective="availability",tenant="acme"} 0.001\n' in text
    assert 'tenant_objective_budget_ratio{objective="latency",tenant="initech"} 0.05\n' in text
    assert 'tenant_objective_latency_edge_milliseconds{le="1000.0",tenant="initech"} 1000.0\n' in text
    assert 'tenant_limit_requests_per_second{tenant="initech"} 10.0\n' in text


def test_a_change_of_the_file_is_seen_and_a_broken_one_leaves_the_last(tmp_path: Path) -> None:
    path = tmp_path / "objectives.json"
    path.write_text(render_objectives(TENANTS[:1]), encoding="utf-8")
    registry = CollectorRegistry()
    registry.register(ObjectiveCollector(path))
    path.write_text(render_objectives(TENANTS), encoding="utf-8")
    assert b'"globex"' in generate_latest(registry)
    path.write_text('{"promises": [{"tenants": ["acme"]}]}', encoding="utf-8")
    assert b'"globex"' in generate_latest(registry)
    with pytest.raises(BadInput, match=r"objectives.json: promises.0.objective: Field required"):
        read_objectives(path)


def test_a_configmap_has_room_for_ten_thousand_tenants_of_the_longest_names() -> None:
    many = [make_tenant(f"tenant-{number:033}") for number in range(10_000)]
    assert len(many[0].id) == 40
    text = render_objectives(many)
    assert len(text) < 1024 * 1024
    assert render_objectives(list(reversed(many))) == text


@pytest.mark.parametrize(("percent", "budget"), [(99.9, 0.001), (99.99, 0.0001), (95, 0.05), (99.95, 0.0005)])
def test_a_budget_is_the_number_that_people_write(percent: float, budget: float) -> None:
    assert error_budget(percent) == budget
