"""What an alert and a recording rule are, and how they become a PrometheusRule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kilo.observe import foreign

_MINUTE_SECONDS = 60

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


def grown(counter: str, by: str, window: str, beyond: int = 0) -> str:
    """That a counter grew by more than ``beyond``, or was born with more than that.

    A counter with labels begins with its first event: it is born at 7, and ``increase`` of it is 0. A series
    is born when it was not there before and either its target was, or the process itself is young; after an
    hour without Prometheus, neither holds of what is old.
    """
    seconds = int(window.removesuffix("m")) * _MINUTE_SECONDS
    young = (
        f"{foreign.UP.name} offset {window} or {foreign.PROCESS_START.name} > time() - {seconds}"
        f" or {foreign.ENVOY_UPTIME.name} < {seconds}"
    )
    born = f"({counter} unless {counter} offset {window}) and on (namespace, pod) ({young})"
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (increase({counter}[{window}])) > {beyond} or {total} ({born}) > {beyond}"
