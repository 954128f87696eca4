"""Dashboards: valid queries of declared series, in a layout that Grafana can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kilo.observe.dashboards import render_dashboards
from kilo.observe.rules import render_rules
from tests.runtime.observe.support import NAMESPACE, STAGE, promtool, undeclared

DASHBOARDS = {name: json.loads(text) for name, text in render_dashboards().items()}
CAPABILITIES = {
    "outbox.json",
    "change-capture.json",
    "dead-letters.json",
    "field-encryption.json",
    "registry-mirror.json",
    "backups.json",
    "goals.json",
    "template-adoption.json",
    "tenant-ramp.json",
    "tenant-objectives.json",
    "usage.json",
}


def queries(dashboard: dict[str, Any]) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [each["expr"] for each in dashboard["annotations"]["list"]]
    return [query.replace("$tenant", ".+").replace("$namespace", NAMESPACE) for query in found]


def test_every_capability_has_its_dashboard() -> None:
    assert set(DASHBOARDS) == CAPABILITIES


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_promtool_parses_every_query(tmp_path: Path, name: str) -> None:
    rules = [
        {"record": f"query:{number}:x", "expr": query}
        for number, query in enumerate(queries(DASHBOARDS[name]))
    ]
    path = tmp_path / "queries.json"
    path.write_text(json.dumps({"groups": [{"name": name, "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_every_series_asked_for_is_declared_or_recorded(name: str) -> None:
    rules = [rule for group in render_rules(STAGE, NAMESPACE)["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    assert {
        query: faults for query in queries(DASHBOARDS[name]) if (faults := undeclared(query, recorded))
    } == {}


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_panels_are_told_apart_and_do_not_overlap(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (column, row)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_variables_used_are_variables_offered(name: str) -> None:
    offered = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    text = json.dumps(DASHBOARDS[name]["panels"])
    assert ("$tenant" in text) == ("tenant" in offered)
    assert "${source}" in text
    assert {"source", "namespace"} <= offered


def test_identifiers_are_stable_and_fit_grafanas_limit() -> None:
    identifiers = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert len(identifiers) == len(DASHBOARDS)
    assert all(len(identifier) <= 40 for identifier in identifiers)
