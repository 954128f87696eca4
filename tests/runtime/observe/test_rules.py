"""Rules and alerts, judged by the real promtool."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from kilo.observe.rules import every_alert, render_rules
from sandbox import toolchain
from tests.runtime.observe.alert_cases import CASES, Case
from tests.runtime.observe.support import (
    NAMESPACE,
    PLACE,
    STAGE,
    promised,
    promtool,
    rules_for,
    run_rule_test,
    series_in,
    undeclared,
)

ROOT = Path(__file__).parents[3]
RULES = render_rules(STAGE, NAMESPACE)
ALERTS = every_alert()


BURN_ALERTS = {"TenantAvailabilityBurn", "TenantLatencyBurn", "TenantBudgetExhausting", "TenantBudgetSpent"}
"""What ``test_burns`` and ``test_budgets`` try."""


def complaints(directory: Path, case: Case, series: dict[str, str], *, fires: bool) -> str:
    alert = next(alert for alert in ALERTS if alert.name == case.alert)
    expected = {
        "exp_labels": {"severity": alert.severity, **PLACE, **case.labels},
        "exp_annotations": {"summary": case.summary, "runbook_url": f"docs/runbooks/{alert.name}.md"},
    }
    given = {**promised(), **series} if case.alert != "ObjectivesUnknown" else series
    test: dict[str, Any] = {
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected] if fires else []}
        ],
    }
    return run_rule_test(directory, rules_for(RULES, case.alert, case.step), test, case.step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires(tmp_path: Path, case: Case) -> None:
    assert complaints(tmp_path, case, case.fires, fires=True) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_is_silent(tmp_path: Path, case: Case) -> None:
    assert complaints(tmp_path, case, case.silent, fires=False) == ""


def test_every_alert_is_tried() -> None:
    assert {case.alert for case in CASES} | BURN_ALERTS == {alert.name for alert in ALERTS}


def test_rules_are_what_the_operator_takes() -> None:
    document = YAML(typ="safe").load(toolchain.path("crds") / "monitoring.coreos.com_prometheusrules.yaml")
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    # Go's inline flags are no JSON Schema pattern, and the field is not used.
    del schema["properties"]["groups"]["items"]["properties"]["partial_response_strategy"]
    jsonschema.validate(RULES, schema)


def test_every_series_asked_for_is_declared() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    assert {rule["expr"]: faults for rule in rules if (faults := undeclared(rule["expr"], recorded))} == {}
    assert series_in('sum by (x) (rate(no_such_total{tenant="a"}[5m]))') == {"no_such_total": {"tenant"}}
    assert undeclared("no_such_total > 1", recorded) == ["no_such_total"]
    assert undeclared('outbox_rows_waiting{tenant="a"} > 1', recorded) == ["outbox_rows_waiting{tenant}"]


@pytest.mark.parametrize("name", sorted({alert.name for alert in ALERTS}))
def test_every_alert_has_its_runbook(name: str) -> None:
    text = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    for part in ("## What it means", "## Look first", "## Mend"):
        assert part in text


def test_no_runbook_is_left_without_its_alert() -> None:
    alerts = {alert.name for alert in ALERTS}
    named = {path.stem for path in (ROOT / "docs" / "runbooks").glob("[A-Z]*.md") if path.stem != "README"}
    assert named <= alerts


def test_rules_see_one_stage_alone() -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["namespace"] == NAMESPACE
            assert rule["labels"]["stage"] == STAGE
            assert rule["expr"].count(f'namespace="{NAMESPACE}"') == sum(
                len(re.findall(rf"(?<![a-zA-Z0-9_:]){re.escape(name)}(?![a-zA-Z0-9_:])", rule["expr"]))
                for name in series_in(rule["expr"])
            )


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RULES), encoding="utf-8")
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
