"""What the pages show, from Prometheus: the panels' own queries, at most so many lines of each.

Only queries of declared panels are asked, with a tenant of the stage in place of the variable: the page is no
way to ask Prometheus anything else.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.observe import foreign
from kilo.observe.annotations import ANNOTATIONS
from kilo.observe.pages import PAGES
from kilo.observe.panels import Page, Panel
from kilo.observe.prometheus import Line as Found
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import recorded_names
from kilo.observe.scope import in_namespace, scoped
from kilo.slo.status import read_standings

LINES = 8
"""Lines of one panel: more of them nobody tells apart."""
RANGES = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
_POINTS = 180
_SHORTEST_STEP_SECONDS = 15
_WORST = 20
_MARKS, _NAMED, _TOGETHER = 20, 4, 4
"""Marks of a page, texts of a mark, and how many steps make one."""
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a graph: its legend, and a value or nothing for each time."""

    label: str
    values: Sequence[float | None]


def describe_pages() -> list[dict[str, Any]]:
    """Every page with the titles and units of its panels."""
    return [
        {
            "file": page.file,
            "title": page.title,
            "tenants": page.tenants,
            "panels": [{"title": panel.title, "unit": panel.unit} for panel in page.panels],
        }
        for page in PAGES
    ]


class Reading:
    """Reads one stage's figures."""

    def __init__(self, outputs: StackOutputs) -> None:
        self.outputs = outputs
        self._matcher = in_namespace(outputs.namespace)

    def panel(self, file: str, number: int, tenant: str | None, length: str) -> dict[str, Any]:
        """The lines of a panel.

        Raises:
            BadInput: there is no such panel, tenant or range.
            Unreachable: Prometheus does not answer.
        """
        page = next((page for page in PAGES if page.file == file), None)
        if page is None or not 0 <= number < len(page.panels) or length not in RANGES:
            msg = f"no panel {number} of {file} over {length}"
            raise BadInput(msg)
        self._check(tenant)
        times = _times(length)
        lines, more = self.lines(file, number, times, tenant)
        return {"times": times, "lines": lines, "more": more}

    def described(self, file: str, number: int) -> tuple[str, Panel, dict[str, str]]:
        """The page's title, a panel of it that there is, and its queries as they are asked, by legend."""
        page = next(page for page in PAGES if page.file == file)
        panel = page.panels[number]
        return (
            page.title,
            panel,
            {legend: self._query(page, query, None) for legend, query in panel.queries.items()},
        )

    def lines(
        self, file: str, number: int, times: list[int], tenant: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """The largest lines of a panel that there is, over evenly spaced times, and how many more there are.

        Raises:
            Unreachable: Prometheus does not answer.
        """
        page = next(page for page in PAGES if page.file == file)
        lines: list[Line] = []
        with Prometheus(self.outputs.monitoring.prometheus_url) as prometheus:
            for legend, query in page.panels[number].queries.items():
                found = prometheus.lines(self._query(page, query, tenant), times)
                lines += [_named(each, legend) for each in found]
        lines.sort(key=_weight, reverse=True)
        return [asdict(line) for line in lines[:LINES]], len(lines) - LINES

    def marks(self, length: str) -> dict[str, Any]:
        """What changed in the range, the newest last; what changed at about one time is one mark.

        Raises:
            BadInput: there is no such range.
            Unreachable: Prometheus does not answer.
        """
        if length not in RANGES:
            msg = f"no range {length}"
            raise BadInput(msg)
        times = _times(length)
        found: dict[tuple[str, int], tuple[float, set[str]]] = {}
        with Prometheus(self.outputs.monitoring.prometheus_url) as prometheus:
            for each in ANNOTATIONS:
                query = scoped(each.query, self._matcher, recorded_names())
                for line in prometheus.lines(query, times):
                    text = _named(line, each.text).label
                    for at in {value for value in line.values if value is not None}:
                        if times[0] <= at <= times[-1] + (times[1] - times[0]):
                            near = (each.name, int(at // (_TOGETHER * (times[1] - times[0]))))
                            first, texts = found.get(near, (at, set[str]()))
                            found[near] = (min(first, at), texts | {text})
        marks = [
            {"at": at, "name": name, "text": _together(sorted(texts))}
            for (name, _), (at, texts) in sorted(found.items(), key=lambda each: each[1][0])
        ]
        return {"marks": marks[-_MARKS:], "more": max(0, len(marks) - _MARKS)}

    def fleet(self) -> dict[str, Any]:
        """What fires, and the objectives with the least budget left."""
        with Prometheus(self.outputs.monitoring.prometheus_url) as prometheus:
            standings = read_standings(prometheus, self.outputs.namespace)
            firing = prometheus.query(f'{foreign.ALERTS.name}{{{self._matcher}, alertstate="firing"}}')
            served = prometheus.query(f"sum(tenant:requests:rate5m{{{self._matcher}}})")
        hidden = {"__name__", "alertname", "alertstate", "severity", "namespace", "stage"}
        alerts = [
            {
                "name": each.labels["alertname"],
                "severity": each.labels.get("severity", ""),
                "about": ", ".join(
                    value for name, value in sorted(each.labels.items()) if name not in hidden
                ),
            }
            for each in sorted(
                firing, key=lambda each: (each.labels.get("severity", ""), each.labels["alertname"])
            )
        ]
        return {
            "stage": self.outputs.stage,
            "tenants": len(self.outputs.tenants),
            "requests": served[0].value if served else 0.0,
            "alerts": alerts,
            "worst": [asdict(each) for each in standings[:_WORST]],
            "objectives": len(standings),
        }

    def tenants(self) -> list[str]:
        """The stage's tenants, by name."""
        return sorted(self.outputs.tenants)

    def _check(self, tenant: str | None) -> None:
        if tenant is not None and tenant not in self.outputs.tenants:
            msg = f"no tenant '{tenant}'"
            raise BadInput(msg)

    def _query(self, page: Page, query: str, tenant: str | None) -> str:
        whole = scoped(query, self._matcher, recorded_names()).replace("$tenant", tenant or ".+")
        # Of a thousand tenants Prometheus picks those that stand out; a tenant's own lines are few.
        return f"topk({LINES}, {whole})" if page.tenants and tenant is None else whole


def _times(length: str) -> list[int]:
    step = max(_SHORTEST_STEP_SECONDS, RANGES[length] // _POINTS)
    end = int(time.time()) // step * step
    return list(range(end - RANGES[length] // step * step, end + 1, step))


def _together(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _named(found: Found, legend: str) -> Line:
    label = _FIELD.sub(lambda field: found.labels.get(field[1], ""), legend)
    return Line(label.strip() or legend, found.values)


def _weight(line: Line) -> float:
    return max((value for value in line.values if value is not None), default=-math.inf)
