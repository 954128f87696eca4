"""What an alert and a recording rule are, and how they become a PrometheusRule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def render_group(name: str, rules: Sequence[Record | Alert], runbooks_url: str) -> Group:
    """Render one group of rules, evaluated every 30 seconds."""
    return {"name": name, "interval": "30s", "rules": [_rule(rule, runbooks_url) for rule in rules]}


def _rule(rule: Record | Alert, runbooks_url: str) -> dict[str, Any]:
    if isinstance(rule, Record):
        return {"record": rule.name, "expr": rule.query}
    return {
        "alert": rule.name,
        "expr": rule.query,
        "for": rule.lasting,
        "labels": {"severity": rule.severity, **rule.labels},
        "annotations": {"summary": rule.summary, "runbook_url": f"{runbooks_url.rstrip('/')}/{rule.name}.md"},
    }
