"""Incidents played back to the rules on burning budgets, and when they page against when theory says so.

By arithmetic, with steady traffic and nothing wrong before, a share ``r`` of bad requests shows in a window
``L`` as ``r t / L`` after ``t``. So a burn of factor ``f`` on a budget ``b`` is seen after ``f b L / r``,
is told ``for`` later, and is over ``S (1 - f b / r)`` after the incident, when the short window ``S`` has
forgotten enough. A page is there from the first of the burns that page to the last. Prometheus is asked for
both minutes; scrapes and evaluations of a minute leave it at most four away. The table is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from kilo.observe.burns import BURNS, MINIMUM_BAD_REQUESTS
from kilo.observe.rules import render_rules
from tests.runtime.observe.support import NAMESPACE, STAGE, promised, rules_for, run_rule_test

RULES = render_rules(STAGE, NAMESPACE)
ALERT = "TenantAvailabilityBurn"
BUDGET = 0.001
"""Of acme, who is promised 99.9 %."""
NEAR_MINUTES = 4
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

    def series(self) -> dict[str, str]:
        """Both counters as promtool takes them, a value or a gap a minute."""
        totals, values = {200: 0, 503: 0}, {200: list[str](), 503: list[str]()}
        for minute in range(self.length + 1):
            if minute in self.restarts:
                totals = {200: 0, 503: 0}
            bad = round(self.traffic * self.share) if START <= minute < START + self.lasts else 0
            there = minute >= self.born and (self.gone is None or minute < self.gone)
            for status, count in ((200, self.traffic - bad), (503, bad)):
                totals[status] += count if minute >= self.born else 0
                values[status].append(str(totals[status]) if there and minute not in self.silent else "_")
        name = 'envoy_gateway_requests_total{{tenant="acme", version="stable", status="{}"}}'
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
            seen = needed * _minutes(burn.long) / self.share
            told = START + seen + _minutes(burn.lasting)
            over = START + self.lasts + _minutes(burn.short) * (1 - needed / self.share)
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


def _minutes(duration: str) -> int:
    return int(duration[:-1]) * _MINUTES[duration[-1]]


def paged(directory: Path, incident: Incident) -> tuple[float, float] | None:
    """The first and the last minute in which a page fires."""
    firing = (
        f'timestamp(max by (tenant) (ALERTS{{alertname="{ALERT}", alertstate="firing", severity="page"}}))'
    )
    found: list[float] = []
    for function in ("min_over_time", "max_over_time"):
        test = {
            "input_series": [
                {"series": name, "values": values}
                for name, values in {**promised(), **incident.series()}.items()
            ],
            "promql_expr_test": [
                {
                    "expr": f"{function}({firing}[{incident.length}m:1m])",
                    "eval_time": f"{incident.length}m",
                    "exp_samples": [{"labels": "{}", "value": -1}],
                }
            ],
        }
        said = run_rule_test(directory, rules_for(RULES, ALERT, "1m"), test, "1m")
        match = re.search(r'got:\s*\[?\s*\{tenant="acme"\} ([0-9.E+]+)', said)
        if match is None:
            assert "got: nil" in said.replace("\n", " ").replace("  ", " ") or re.search(
                r"got:\s*nil", said
            ), said
            return None
        found.append(float(match[1]) / 60)
    return found[0], found[1]


@pytest.mark.parametrize("name", INCIDENTS)
def test_a_page_comes_and_goes_when_theory_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = INCIDENTS[name]
    expected = incident.theory()
    measured = paged(tmp_path, incident)
    with capsys.disabled():
        print(f"\n{name:<46}{_said(expected):>22} by theory {_said(measured):>22} measured", end="")
    if expected is None:
        assert measured is None
        return
    assert measured is not None
    assert measured == pytest.approx(expected, abs=NEAR_MINUTES)


def _said(times: tuple[float, float] | None) -> str:
    return "no page" if times is None else f"{times[0]:.0f} min to {times[1]:.0f} min"
