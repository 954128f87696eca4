"""Incidents played back to the rules on burning budgets, and when they page against when theory says so.

By arithmetic, with steady traffic and nothing wrong before, a share ``r`` of bad requests shows in a window
``L`` as ``r t / L`` after ``t``. So a burn of factor ``f`` on a budget ``b`` is seen after ``f b L / r``,
is told ``for`` later, and is over ``S (1 - f b / r)`` after the incident, when the short window ``S`` has
forgotten enough. A page is there from the first of the burns that page to the last. Prometheus is asked for
both minutes; scrapes and evaluations of a minute leave it at most four away. The table is printed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kilo.observe.rules import render_rules
from tests.runtime.observe.incidents import INCIDENTS, page_minutes
from tests.runtime.observe.support import NAMESPACE, STAGE, promised, rules_for

ALERT = "TenantAvailabilityBurn"
RULES = rules_for(render_rules(STAGE, NAMESPACE), ALERT, "1m")
PAGE = f'alertname="{ALERT}", severity="page"'
NEAR_MINUTES = 4


@pytest.mark.parametrize("name", INCIDENTS)
def test_a_page_comes_and_goes_when_theory_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = INCIDENTS[name]
    expected = incident.theory()
    measured = page_minutes(tmp_path, incident, RULES, {**promised(), **incident.series()}, PAGE)
    with capsys.disabled():
        print(f"\n{name:<46}{_said(expected):>22} by theory {_said(measured):>22} measured", end="")
    if expected is None:
        assert measured is None
        return
    assert measured is not None
    assert measured == pytest.approx(expected, abs=NEAR_MINUTES)


def _said(times: tuple[float, float] | None) -> str:
    return "no page" if times is None else f"{times[0]:.0f} min to {times[1]:.0f} min"
