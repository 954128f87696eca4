"""The rules on burning budgets beside those that Sloth generated for the same promise, on the same incidents.

Sloth's are an example of its own release, https://github.com/slok/sloth/tree/v0.16.0/examples/_gen: 99.9 % of
requests, the windows and factors of the SRE Workbook. They page at once, so ours are held to them without
their ``for``; and for ten bad requests at least, of which Sloth knows nothing. The table is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kilo.observe.burns import MINIMUM_BAD_REQUESTS
from kilo.observe.rules import render_rules
from sandbox.toolchain.cache import install
from sandbox.toolchain.golang import go_module_files
from sandbox.toolchain.progress import Progress
from tests.runtime.observe.incidents import INCIDENTS, Incident, page_minutes
from tests.runtime.observe.support import NAMESPACE, STAGE, promised, rules_for, run_rule_test

ALERT = "TenantAvailabilityBurn"
PAGE = f'alertname="{ALERT}", severity="page"'
SLOTH_PAGE = 'alertname="MyServiceHighErrorRate", sloth_severity="page"'
SLOTH_SERIES = 'http_request_duration_seconds_count{{job="myservice", code="{}"}}'
NEAR_MINUTES = 5
"""What is longer than an hour is summed from steps of five minutes, which Sloth does not do."""
WINDOWS = ("5m", "30m", "1h", "6h")
STEADY = "fast burn: a third fails for half an hour"
COMPARED = (
    STEADY,
    "everything fails for ten minutes",
    "slow burn: seven times too fast for seven hours",
    "within the budget",
    "low traffic: four of eight fail",
    "a tenant that vanishes while it burns",
    "counters begin again while it burns",
    "Prometheus is down for the first hour of two",
)


@pytest.fixture(scope="module")
def sloth() -> Mapping[str, Any]:
    file = "examples/_gen/getting-started.yml"
    recipe = go_module_files(
        "sloth",
        "github.com/slok/sloth",
        [file],
        summary="rules that Sloth generated",
        disk_bytes=1_000_000,
        modules=Path(__file__).parent,
    )
    with Progress() as progress, progress.step(recipe.name, recipe.summary) as step:
        directory = install(recipe, step)
    rules = yaml.safe_load((directory / Path(file).name).read_text(encoding="utf-8"))
    return {"groups": [{**group, "interval": "1m"} for group in rules["groups"]]}


def ours() -> dict[str, Any]:
    """The stage's rules, which page without waiting."""
    rules = rules_for(render_rules(STAGE, NAMESPACE), ALERT, "1m")
    return {
        "groups": [
            {**group, "rules": [{k: v for k, v in rule.items() if k != "for"} for rule in group["rules"]]}
            for group in rules["groups"]
        ]
    }


@pytest.mark.parametrize("name", COMPARED)
def test_both_page_in_the_same_minutes(
    name: str, sloth: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = INCIDENTS[name]
    own = page_minutes(tmp_path, incident, ours(), {**promised(), **incident.series()}, PAGE)
    theirs = page_minutes(tmp_path, incident, sloth, incident.series(SLOTH_SERIES), SLOTH_PAGE)
    with capsys.disabled():
        print(f"\n{name:<55} ours {own!s:>16} Sloth's {theirs!s:>16}", end="")
    if incident.lasts and incident.traffic * incident.share * incident.lasts < MINIMUM_BAD_REQUESTS:
        assert own is None
        assert theirs is not None
        return
    assert own == (None if theirs is None else pytest.approx(theirs, abs=NEAR_MINUTES))


def test_both_record_the_same_ratios(sloth: Mapping[str, Any], tmp_path: Path) -> None:
    incident = INCIDENTS[STEADY]
    expected = {window: ratio(incident, window) for window in WINDOWS}
    every = rules_for(render_rules(STAGE, NAMESPACE), ALERT, "1m")
    for rules, series, name in (
        (every, {**promised(), **incident.series()}, "tenant:error_ratio:rate"),
        (sloth, incident.series(SLOTH_SERIES), "slo:sli_error:ratio_rate"),
    ):
        test = {
            "input_series": [{"series": each, "values": values} for each, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f"round(sum by (nothing) ({name}{window}), 0.005)",
                    "eval_time": "425m",
                    "exp_samples": [{"labels": "{}", "value": value}],
                }
                for window, value in expected.items()
            ],
        }
        assert run_rule_test(tmp_path, dict(rules), test, "1m") == ""


def ratio(incident: Incident, window: str) -> float:
    """By arithmetic, in the 26th bad minute: to 0.005."""
    minutes = {"5m": 5, "30m": 30, "1h": 60, "6h": 360}[window]
    return round(incident.share * min(26, minutes) / minutes / 0.005) * 0.005
