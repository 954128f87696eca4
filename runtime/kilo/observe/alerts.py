"""What an alert and a recording rule are, and how they become a PrometheusRule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["page", "ticket"]
"""``page`` wakes a person now; ``ticket`` waits for the working day."""

Group = dict[str, Any]
"""One group of ``spec.groups`` of a PrometheusRule (monitoring.coreos.com/v1)."""


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule, named level:metric:operations."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. Its runbook is ``docs/runbooks/<name>.md``."""

    name: str
    query: str
    severity: Severity
    summary: str
    """One line, which may use ``{{ $labels.x }}`` and ``{{ $value }}``."""
    lasting: str = "0s"
    """How long the query must hold before the alert fires, as a Prometheus duration."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """What all rules of a stage have in common."""

    labels: Mapping[str, str]
    """On every record and alert, so that routes and other stages can tell whose they are."""
    scoped: Callable[[str], str]
    """Narrows a query to the stage's series."""
    runbooks_url: str


def render_group(name: str, interval: str, rules: Sequence[Record | Alert], place: Place) -> Group:
    """Render one group of rules, evaluated every ``interval``."""
    return {"name": name, "interval": interval, "rules": [_rule(rule, place) for rule in rules]}


def _rule(rule: Record | Alert, place: Place) -> dict[str, Any]:
    if isinstance(rule, Record):
        return {"record": rule.name, "expr": place.scoped(rule.query), "labels": dict(place.labels)}
    return {
        "alert": rule.name,
        "expr": place.scoped(rule.query),
        "for": rule.lasting,
        "labels": {**place.labels, "severity": rule.severity, **rule.labels},
        "annotations": {
            "summary": rule.summary,
            "runbook_url": f"{place.runbooks_url.rstrip('/')}/{rule.name}.md",
        },
    }
