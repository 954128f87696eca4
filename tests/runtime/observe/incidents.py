"""Incidents minute by minute, and the minutes in which rules page for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilo.observe.burns import BURNS, MINIMUM_BAD_REQUESTS
from tests.runtime.observe.support import run_rule_test

BUDGET = 0.001
"""Of acme, who is promised 99.9 %."""
GATEWAY = 'envoy_gateway_requests_total{{tenant="acme", version="stable", status="{}"}}'
_MINUTES = {"m": 1, "h": 60, "d": 1_440}
START = 400
"""The first bad minute: by then the longest window that pages is full."""


@dataclass(frozen=True)
class Incident:
    """What happens minute by minute.

    Attributes:
        lasts: bad minutes, none where nothing is bad.
        share: of requests that are bad then.
        traffic: requests a minute.
        silent: minutes of which nothing is scraped.
        restarts: minutes in which counters begin at 0 again.
        born: the minute in which the tenant's series are there for the first time.
        gone: the minute from which on they are not.
        length: of the whole story, in minutes.
        pages: the first and the last minute of the page, where that is not by the arithmetic above.
    """

    lasts: int = 0
    share: float = 0.0
    traffic: int = 1_000
    silent: range = range(0)
    restarts: frozenset[int] = frozenset()
    born: int = 0
    gone: int | None = None
    length: int = 600
    pages: tuple[float, float] | None = None

    def series(self, name: str = GATEWAY) -> dict[str, str]:
        """Both counters as promtool takes them, a value or a gap a minute; a name leaves its status open."""
        totals, values = {200: 0, 503: 0}, {200: list[str](), 503: list[str]()}
        for minute in range(self.length + 1):
            if minute in self.restarts:
                totals = {200: 0, 503: 0}
            bad = round(self.traffic * self.share) if START <= minute < START + self.lasts else 0
            there = minute >= self.born and (self.gone is None or minute < self.gone)
            for status, count in ((200, self.traffic - bad), (503, bad)):
                totals[status] += count if minute >= self.born else 0
                values[status].append(str(totals[status]) if there and minute not in self.silent else "_")
        return {name.format(status): " ".join(each) for status, each in values.items()}

    def theory(self) -> tuple[float, float] | None:
        """From when to when it pages; none where it pages nobody."""
        if self.pages:
            return self.pages
        if self.traffic * self.share * self.lasts < MINIMUM_BAD_REQUESTS:
            return None
        pages: list[tuple[float, float]] = []
        for burn in (each for each in BURNS if each.severity == "page"):
            needed = burn.factor * BUDGET
            seen = needed * minutes(burn.long) / self.share
            told = START + seen + minutes(burn.lasting)
            over = START + self.lasts + minutes(burn.short) * (1 - needed / self.share)
            if self.share > needed and seen <= self.lasts and told < over:
                pages.append((told, over))
        return (min(told for told, _ in pages), max(over for _, over in pages)) if pages else None


INCIDENTS = {
    "fast burn: a third fails for half an hour": Incident(30, 0.3),
    "everything fails for ten minutes": Incident(10, 1.0),
    "slow burn: seven times too fast for seven hours": Incident(420, 0.007, length=900),
    "blip: half a minute of everything": Incident(1, 0.5),
    "within the budget": Incident(150, 0.0009),
    "low traffic: four of eight fail": Incident(4, 0.5, traffic=2),
    "a tenant that vanishes": Incident(gone=450),
    # When nothing of it is seen any more, its short window empties within five minutes.
    "a tenant that vanishes while it burns": Incident(150, 0.3, gone=430, pages=(405, 460)),
    "counters begin again": Incident(restarts=frozenset({420, 421, 500})),
    "counters begin again while it burns": Incident(30, 0.3, restarts=frozenset({415})),
    "a new tenant": Incident(born=420),
    "a new tenant that burns": Incident(30, 0.3, born=395),
    "Prometheus is down for an hour": Incident(silent=range(420, 480)),
    # The hour before it is not seen: what it finds then is a burn that begins.
    "Prometheus is down for the first hour of two": Incident(
        120, 0.3, silent=range(402, 460), pages=(464, 549)
    ),
    "the clock steps by ten minutes": Incident(silent=range(420, 430)),
}


def minutes(duration: str) -> int:
    """Of a duration as Prometheus writes it."""
    return int(duration[:-1]) * _MINUTES[duration[-1]]


def page_minutes(
    directory: Path, incident: Incident, rules: Mapping[str, Any], series: Mapping[str, str], page: str
) -> tuple[float, float] | None:
    """The first and the last minute in which a page fires; none when none does.

    Args:
        directory: for promtool's files.
        incident: what happens.
        rules: groups of rules.
        series: what they read, as promtool takes it.
        page: the selector of ``ALERTS`` that a page has, such as ``alertname="Burn", severity="page"``.
    """
    firing = f'timestamp(max by (nothing) (ALERTS{{{page}, alertstate="firing"}}))'
    test = {
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        # No minute is -1: promtool complains of what it found.
        "promql_expr_test": [
            {
                "expr": f"{function}({firing}[{incident.length}m:1m])",
                "eval_time": f"{incident.length}m",
                "exp_samples": [{"labels": "{}", "value": -1}],
            }
            for function in ("min_over_time", "max_over_time")
        ],
    }
    said = run_rule_test(directory, dict(rules), test, "1m")
    found = [float(value) / 60 for value in re.findall(r"got:\s*\[?\s*\{\} ([0-9.E+]+)", said)]
    if not found:
        assert len(re.findall(r"got:\s*nil", said)) == 2, said
        return None
    first, last = found
    return first, last
