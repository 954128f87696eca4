"""Graphs of a stage's own metrics: read by the dashboards' queries, drawn as inline SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kilo.contract import StackOutputs
from kilo.dash.reading import Reading
from kilo.errors import KiloError

SHOWN = {
    "outbox": (0, 1, 2, 3, 4, 6),
    "change-capture": (0, 1, 2, 3),
    "dead-letters": (0, 2, 4),
    "field-encryption": (0, 1, 4),
    "registry-mirror": (0, 1, 2, 4),
    "tenant-ramp": (0, 1, 2, 4),
    "tenant-objectives": (0, 1, 2, 4, 5),
}
"""Which panels of which dashboards are evidence."""
_POINTS = 240
_LEAST_STEP_SECONDS = 15
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 8, 22
_TICKS = 4
_MINUTE_SECONDS, _DAY_SECONDS = 60, 86_400


@dataclass(frozen=True, slots=True)
class Graph:
    """A panel over the evidence's time: its lines, or why there are none."""

    page: str
    title: str
    unit: str
    times: Sequence[int]
    lines: Sequence[Mapping[str, Any]]
    more: int
    queries: Mapping[str, str]
    trouble: str = ""

    def document(self) -> dict[str, Any]:
        """The raw data."""
        return {
            "page": self.page,
            "title": self.title,
            "unit": self.unit,
            "queries": dict(self.queries),
            "times": list(self.times),
            "lines": [dict(line) for line in self.lines],
            "more": max(self.more, 0),
            "trouble": self.trouble,
        }


def read_graphs(outputs: StackOutputs, since: float, until: float) -> list[Graph]:
    """Every panel of :data:`SHOWN` over a time, in seconds since the epoch."""
    reading = Reading(outputs)
    step = max(_LEAST_STEP_SECONDS, math.ceil((until - since) / _POINTS))
    end = int(until) // step * step
    times = range(end - int(until - since) // step * step, end + 1, step)
    graphs: list[Graph] = []
    for file, numbers in SHOWN.items():
        for number in numbers:
            page, panel, queries = reading.described(file, number)
            try:
                lines, more = reading.lines(file, number, list(times))
                trouble = ""
            except KiloError as error:
                lines, more, trouble = [], 0, str(error)
            graphs.append(Graph(page, panel.title, panel.unit, list(times), lines, more, queries, trouble))
    return graphs


def draw(graph: Graph) -> str:
    """The graph as SVG, whose colours come from the page around it; text where there is nothing to draw."""
    lines = [line for line in graph.lines if any(value is not None for value in line["values"])]
    if graph.trouble or not lines:
        said = graph.trouble or "Nothing was recorded in this time."
        return f'<p class="none">{html.escape(said)}</p>'
    top = _nice(max(value for line in lines for value in line["values"] if value is not None))
    first, last = graph.times[0], graph.times[-1]
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + width * (at - first) / max(last - first, 1)

    def y(value: float) -> float:
        return _TOP + height * (1 - max(min(value, top), 0) / top)

    label = html.escape(f"{graph.title} {len(lines)} lines, at most {show(top, graph.unit)}", quote=True)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for number in range(_TICKS + 1):
        value = top * number / _TICKS
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" class="end">'
            f"{html.escape(show(value, graph.unit))}</text>"
        )
    pattern = "%H:%M" if last - first < 2 * _DAY_SECONDS else "%d %b"
    for number in range(_TICKS + 1):
        at = first + (last - first) * number / _TICKS
        anchor = {0: "start", _TICKS: "end"}.get(number, "middle")
        said = f"{datetime.fromtimestamp(at, UTC):{pattern}}"
        parts.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - 6}" class="{anchor}">{said}</text>')
    for number, line in enumerate(lines):
        parts.append(f'<path class="line c{number % 8}" d="{_path(line["values"], graph.times, x, y)}"/>')
    parts.append("</svg>")
    legend = "".join(
        f'<li class="c{number % 8}">{html.escape(str(line["label"]))}</li>'
        for number, line in enumerate(lines)
    )
    more = f"<li>and {graph.more} more</li>" if graph.more > 0 else ""
    return f'{"".join(parts)}<ul class="legend">{legend}{more}</ul>'


def _path(values: Sequence[float | None], times: Sequence[int], x: Any, y: Any) -> str:
    """Moves and lines; a value without neighbours is a short dash, so that it is seen."""
    parts: list[str] = []
    drawing = False
    for number, (at, value) in enumerate(zip(times, values, strict=True)):
        if value is None:
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{x(at):.1f} {y(value):.1f}")
        alone = not drawing and (number + 1 == len(values) or values[number + 1] is None)
        parts.append("h2" if alone else "")
        drawing = True
    return "".join(parts)


def _nice(largest: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next((step * power for step in (1, 2, 2.5, 5) if largest <= step * power), 10 * power)


def show(value: float, unit: str) -> str:
    """A value in Grafana's unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and value >= 2 * _MINUTE_SECONDS:
        return f"{value / _MINUTE_SECONDS:.3g} min"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{letter}{_SUFFIX.get(unit, '')}"
    return f"{value:.3g}{_SUFFIX.get(unit, '')}"


_SUFFIX = {"s": " s", "ms": " ms", "ops": "/s", "reqps": "/s", "bytes": "B", "Bps": "B/s"}
