"""What goals' figures were before, asked of a real Prometheus and database as of then."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from kilo.contract import StackOutputs
from kilo.fle.audit.log import append
from kilo.goals.cli import print_goals
from kilo.goals.figures import Looking
from kilo.goals.goals import Standing, read_goals
from kilo.goals.measure import Measure
from kilo.goals.past import NONE_YET
from kilo.observe import metrics

from .conftest import History
from .test_goals import Connection, events

LOST, COVERAGE = metrics.OUTBOX_LOST.name, metrics.FLE_COVERAGE.name
DAY = 86_400
THEN = (DAY + 45, DAY + 30, DAY + 15)


def standings(measure: Measure, looking: Looking) -> dict[str, Standing]:
    return {each.goal.name: each for each in read_goals(measure, looking)}


def past(standing: Standing) -> dict[str, Any]:
    return {each["when"]: each for each in standing.document(time.time())["past"]}


def test_each_figure_stands_beside_what_it_was(
    history: History, connection: Connection, outputs: StackOutputs, capsys: pytest.CaptureFixture[str]
) -> None:
    history.add(LOST, 0)
    history.add(LOST, 3, ages=THEN)
    events(connection, 20)
    events(connection, 10, age=DAY + 300, delivered=9)
    found = standings(Measure(history.start(), "kilo", connection), Looking(outputs))
    share = past(found["outbox-share"])
    assert (found["outbox-share"].figure.value, share["a day ago"]["value"]) == (1.0, 0.9)
    assert share["a day ago"]["moved"] == "+10 %"
    assert (share["a week ago"]["shown"], share["a week ago"]["value"]) == (NONE_YET, None)
    assert share["a week ago"]["reason"] == "no event was taken in within the window"
    # Of then: one that nothing has by the tables, and three by the reconciler.
    assert past(found["lost"])["a day ago"]["value"] == 4
    assert found["lost"].trend == "-4 since a day ago"
    print_goals(list(found.values()), time.time())
    said = " ".join(capsys.readouterr().out.split())
    assert "a day ago" in said
    assert "no history" in said


def test_what_is_not_kept_has_no_history(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 0)
    state = {"deployment": {"resources": []}}
    looking = Looking(
        outputs,
        state=state,
        previews=(
            {
                "service": "orders",
                "seconds": 60.0,
                "ended_at": time.time() - 5,
                "checks": [{"check": "ready", "state": "green"}],
            },
        ),
    )
    found = standings(Measure(history.start(rules=True), "kilo", connection), looking)
    assert found["template"].figure.value == 60
    assert found["dashboards"].figure.value is not None
    for name in ("template", "dashboards", "burn-alerts", "fle-rotation", "ramp"):
        for each in past(found[name]).values():
            assert (each["shown"], each["moved"]) == (NONE_YET, None)
            assert each["reason"]
    assert {found[name].trend for name in ("template", "dashboards")} == {NONE_YET}


def test_a_series_of_then_that_was_stale_is_no_history(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 0)
    history.add(LOST, 0, ages=(DAY + 290, DAY + 250))
    events(connection, 1)
    events(connection, 1, age=DAY + 300)
    found = standings(Measure(history.start(), "kilo", connection), Looking(outputs))
    assert " s old" in past(found["lost"])["a day ago"]["reason"]


def test_the_last_promotion_that_was_verified_is_a_moment(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 0)
    events(connection, 4)
    measure = Measure(history.start(), "kilo", connection)

    def note(act: str, promotion: str) -> None:
        details = {"act": act, "promotion": promotion}
        append(connection, "ana", "promotion-step", f"promotion/{outputs.stage}", details)

    named = "before the last promotion"
    note("begun", "one")
    assert named not in past(standings(measure, Looking(outputs))["outbox-share"])
    note("verified", "one")
    note("begun", "two")
    note("rolled-back", "two")
    at = past(standings(measure, Looking(outputs))["outbox-share"])[named]
    assert (at["value"], at["moved"]) == (1.0, "steady")
    [(begun,)] = connection.execute(
        "SELECT entry FROM fle_audit WHERE entry::jsonb #>> '{details,act}' = 'begun' ORDER BY seq LIMIT 1"
    ).fetchall()
    assert at["at"] == pytest.approx(datetime.fromisoformat(json.loads(str(begun))["at"]).timestamp(), abs=5)
