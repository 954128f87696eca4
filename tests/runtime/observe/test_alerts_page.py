"""The page of how alerts were proven: every alert is on it, and what it calls live is proven live."""

from __future__ import annotations

import re
from pathlib import Path

from kilo.observe.rules import every_alert

ROOT = Path(__file__).parents[3]
_ROW = re.compile(r"^\| (\w+) \| (page|ticket) \| (live|by cases) \|", re.MULTILINE)

SEVERITY = {alert.name: alert.severity for alert in reversed(every_alert())}
ROWS = {
    name: (severity, proven)
    for name, severity, proven in _ROW.findall((ROOT / "docs" / "alerts.md").read_text(encoding="utf-8"))
}


def test_every_alert_is_on_the_page_with_its_severity() -> None:
    assert {name: severity for name, (severity, _) in ROWS.items()} == SEVERITY


def test_what_is_called_live_is_what_the_tests_cause() -> None:
    tests = (ROOT / "tests" / "alerts" / "test_alerts.py").read_text(encoding="utf-8")
    caused = {name for name in re.findall(r'"([A-Z]\w+)"', tests) if name in SEVERITY}
    assert {name for name, (_, proven) in ROWS.items() if proven == "live"} == caused


def test_every_page_is_proven_live() -> None:
    assert [name for name, (_, proven) in ROWS.items() if SEVERITY[name] == "page" and proven != "live"] == []
