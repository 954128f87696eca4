"""Tenants, and the real promtool, for the tests of rules and dashboards."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kilo.observe import foreign, metrics
from kilo.slo.exporter import ObjectiveCollector
from kilo.slo.objectives import OBJECTIVES_FILE, render_objectives
from kilo.tenancy import Objective, RateLimit, Tenant
from sandbox import toolchain


def make_tenant(name: str, **changes: Any) -> Tenant:
    settings: dict[str, Any] = {
        "tier": "gold",
        "limit": RateLimit(requests_per_second=100, burst=200),
        "timeout_ms": 1_000,
        "retries": 0,
        "objective": Objective(availability_percent=99.9, latency_threshold_ms=300, latency_percent=99),
        "spans_per_second": 100,
    }
    return Tenant.model_validate({**settings, **changes, "id": name})


TENANTS = [
    make_tenant("acme"),
    make_tenant("globex"),
    make_tenant(
        "initech",
        tier="bronze",
        limit=RateLimit(requests_per_second=10, burst=20),
        objective=Objective(availability_percent=99, latency_threshold_ms=1_000, latency_percent=95),
    ),
]


NAMESPACE, STAGE = "kilo", "dev"
PLACE = {"namespace": NAMESPACE, "stage": STAGE}


def in_namespace(name: str) -> str:
    """The series as the stage's scrape has it."""
    bare, _, inside = name.partition("{")
    return f'{bare}{{namespace="{NAMESPACE}"{", " if inside else ""}{inside or "}"}'


def promised(tenants: Sequence[Tenant] = TENANTS, length: int = 1_500) -> dict[str, str]:
    """What the exporter says of the tenants, as promtool's series."""
    with TemporaryDirectory() as directory:
        path = Path(directory, OBJECTIVES_FILE)
        path.write_text(render_objectives(tenants), encoding="utf-8")
        return {
            _series(sample.name, sample.labels): f"{sample.value}x{length}"
            for family in ObjectiveCollector(path).collect()
            for sample in family.samples
        }


def _series(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in labels.items())}}}"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(toolchain.path("promtool")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_rule_test(directory: Path, rules: dict[str, Any], test: dict[str, Any], interval: str) -> str:
    """Run one promtool unit test of the stage's series; return what it complains of, empty when it passes."""
    series = [{**each, "series": in_namespace(each["series"])} for each in test["input_series"]]
    Path(directory, "rules.json").write_text(json.dumps(rules), encoding="utf-8")
    whole = {
        "rule_files": ["rules.json"],
        "evaluation_interval": interval,
        "tests": [{"interval": interval, **test, "input_series": series}],
    }
    path = Path(directory, "test.json")
    path.write_text(json.dumps(whole), encoding="utf-8")
    done = promtool("test", "rules", str(path))
    return "" if done.returncode == 0 else done.stdout + done.stderr


_WORDS = frozenset(
    {"and", "or", "unless", "on", "by", "bool", "sum", "max", "min", "avg", "count", "topk", "vector", "time"}
    | {"rate", "increase", "absent", "histogram_quantile", "sum_over_time", "avg_over_time", "max_over_time"}
    | {"label_values", "clamp_min", "clamp_max", "changes", "last_over_time", "offset", "end"}
    | {"vector", "day_of_month", "hour", "minute"}
)
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
_CLAUSE = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*"[^"]*"')
# What Prometheus itself puts on every series that it scrapes.
_SCRAPED = frozenset({"job", "instance", "namespace", "pod"})


def rules_for(rules: dict[str, Any], alert: str, step: str) -> dict[str, Any]:
    """Keep an alert and the records that it is made of, once a step: a test over days ends in seconds.

    What is summed is summed from steps of five minutes, whatever the step of the test. No test lasts a month.
    """
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    needed = [rule for rule in every if rule.get("alert") == alert]
    for rule in needed:
        read = set(re.findall(r"[a-zA-Z_:][\w:]*", rule["expr"]))
        needed += [each for each in every if each.get("record") in read and each not in needed]
    # In the order in which they are evaluated.
    groups = (
        {**group, "rules": [each for each in group["rules"] if each in needed]} for group in rules["groups"]
    )
    return {
        "groups": [
            {**group, "interval": "5m" if group["name"] == "kilo-tenant-sums" else step}
            for group in groups
            if group["rules"]
        ]
    }


def series_in(query: str) -> dict[str, set[str]]:
    """Find every series that a query asks for, with the labels that it selects by."""
    bare = _CLAUSE.sub(" ", query)
    bare = re.sub(r"\[[^\]]*\]|\boffset [0-9]+[smhd]", " ", bare)
    found: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(bare):
        if name not in _WORDS:
            found.setdefault(name, set()).update(_MATCHER.findall(matchers))
    return found


def undeclared(query: str, recorded: set[str]) -> list[str]:
    """List what a query asks for that nothing is declared to export."""
    declared = {
        series: {*metric.labels, "le"} for metric in metrics.CATALOGUE.values() for series in metric.series()
    }
    declared |= {series.name: set(series.labels) for series in foreign.FOREIGN.values()}
    faults: list[str] = []
    for name, labels in series_in(query).items():
        if name in recorded:
            continue
        if name not in declared:
            faults.append(name)
            continue
        faults += [f"{name}{{{label}}}" for label in labels - declared[name] - _SCRAPED]
    return faults
