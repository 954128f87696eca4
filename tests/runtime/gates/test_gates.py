"""Gates: what passes, and everything that is missing, stale, skewed or breached fails."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.goals.figures import Looking
from kilo.goals.measure import Measure
from kilo.observe import metrics
from kilo.observe.prometheus import Prometheus
from kilo.promotion.gates import Check, GateSettings, check_gate
from kilo.promotion.release import Digests, Live

from .conftest import History

Connection = psycopg.Connection[tuple[Any, ...]]
AGES = tuple(float(age) for age in range(240, 0, -5))
ALERT = 'ALERTS{alertname="OutboxLag", alertstate="firing", severity="page"}'
SETTINGS = GateSettings(soak_hours=24, soak_factor=100 / 86_400)  # 100 seconds
PINNED = Digests({"i@sha256:x": "sha256:x"}, ())


@pytest.fixture
def live() -> Live:
    return Live("c0ffee", committed=True, configuration="x", images=("i@sha256:x",), since=time.time() - 150)


def healthy(history: History) -> None:
    for name in (metrics.OUTBOX_LOST.name, metrics.OUTBOX_ROWS_WAITING.name):
        history.add(name, 0, ages=AGES)
    history.add(
        f'{metrics.OBJECTIVE_BUDGET.name}{{tenant="acme", objective="availability"}}', 0.001, ages=AGES
    )


def delivered(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at)"
        " VALUES ('one', 'acme', 'order', '1', 'order.created', '{}', now() - interval '60 s')"
    )
    connection.execute(
        "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
        " VALUES ('events', 'one', now(), 'acme', 'worker')"
    )


def gate(measure: Measure, outputs: StackOutputs, live: Live, **changes: Any) -> dict[str, Check]:
    digests, settings = changes.get("digests", PINNED), changes.get("settings", SETTINGS)
    stage = outputs.model_copy(update={"stage": changes.get("stage", "dev")})
    return {each.name: each for each in check_gate(measure, Looking(stage), live, digests, settings)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, each in checks.items() if not each.passed]


def test_a_release_that_was_good_for_its_soak_passes(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    checks = gate(Measure(history.start(), "kilo", connection), outputs, live)
    assert failed(checks) == []
    assert all(each.query and each.source and each.window for each in checks.values())
    now = time.time()
    assert all(
        each.figure.sampled_at and now - each.figure.sampled_at < 300
        for name, each in checks.items()
        if name not in {"program", "digests"}
    )


def test_a_soak_that_is_too_short_fails(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    measure = Measure(history.start(), "kilo", connection)
    assert failed(gate(measure, outputs, live, settings=GateSettings(soak_hours=24))) == ["soak"]
    # What was first seen a minute and a half ago has soaked for that, whenever it was deployed.
    seen = replace(PINNED, since=time.time() - 90)
    assert failed(gate(measure, outputs, live, digests=seen)) == ["soak"]


@pytest.mark.parametrize("series", [ALERT, metrics.OUTBOX_LOST.name])
def test_a_breach_begins_the_soak_anew(
    history: History, connection: Connection, outputs: StackOutputs, live: Live, series: str
) -> None:
    healthy(history)
    delivered(connection)
    label = "" if "{" in series else '{pod="b"}'
    history.add(f"{series}{label}", 1, ages=(70, 65, 60))
    history.add(f"{series}{label}", 0 if label else float("nan"), ages=(5,))
    checks = gate(Measure(history.start(), "kilo", connection), outputs, live)
    assert "soak" in failed(checks)
    soaked = checks["soak"].figure.value
    assert soaked is not None
    assert soaked * 3_600 < 100


def test_a_breach_of_the_release_before_is_not_this_ones(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    history.add(ALERT, 1, ages=(235, 230))
    history.add(ALERT, float("nan"), ages=(225,))
    checks = gate(
        Measure(history.start(), "kilo", connection), outputs, replace(live, since=time.time() - 120)
    )
    assert "lost" not in failed(checks)


def test_nothing_passes_where_nobody_answers(outputs: StackOutputs, live: Live) -> None:
    with Prometheus("http://127.0.0.1:9") as nobody:
        checks = gate(Measure(nobody, "kilo", "no database"), outputs, live)
    assert {"soak", "watched", "lost", "duplicates"} <= set(failed(checks))
    assert all(checks[name].document()["reason"] for name in failed(checks))


def test_missing_and_stale_metrics_fail(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    delivered(connection)
    for name in (metrics.OUTBOX_LOST.name, metrics.OUTBOX_ROWS_WAITING.name):
        history.add(name, 0, ages=(240, 230, 220))
    checks = gate(Measure(history.start(), "kilo", connection), outputs, live)
    assert {"soak", "watched", "lost"} <= set(failed(checks))
    assert "s old" in checks["watched"].document()["reason"]


def test_a_soak_that_nobody_watched_fails(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    delivered(connection)
    recent = tuple(float(age) for age in range(60, 0, -5))
    for name in (metrics.OUTBOX_LOST.name, metrics.OUTBOX_ROWS_WAITING.name):
        history.add(name, 0, ages=recent)
    history.add(f'{metrics.OBJECTIVE_BUDGET.name}{{tenant="acme", objective="latency"}}', 0.1, ages=recent)
    live = Live("c0ffee", committed=True, configuration="x", images=(), since=time.time() - 1_000)
    settings = GateSettings(soak_hours=1, soak_factor=900 / 3_600)
    checks = gate(Measure(history.start(), "kilo", connection), outputs, live, settings=settings)
    assert failed(checks) == ["watched"]


@pytest.mark.parametrize("ahead", [600, -600])
def test_a_clock_that_is_wrong_fails_the_gate(
    history: History, connection: Connection, outputs: StackOutputs, live: Live, ahead: float
) -> None:
    healthy(history)
    delivered(connection)
    skewed = Measure(history.start(), "kilo", connection, clock=lambda: time.time() + ahead)
    assert {"soak", "watched", "lost", "duplicates"} <= set(failed(gate(skewed, outputs, live)))


def test_a_release_of_the_future_has_not_soaked(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    measure = Measure(history.start(), "kilo", connection)
    checks = gate(measure, outputs, replace(live, since=time.time() + 3_600))
    assert "in the future: a clock is wrong" in checks["soak"].document()["reason"]


def test_what_is_not_known_by_digest_or_moved_or_uncommitted_fails(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    measure = Measure(history.start(), "kilo", connection)
    assert failed(gate(measure, outputs, live, digests=Digests({}, ("i:v1",)))) == ["digests"]
    moved = Digests({"i:v1": "sha256:b"}, (), ("i:v1: its tag has b, and had a",), time.time() - 140)
    assert {"digests", "soak"} <= set(failed(gate(measure, outputs, live, digests=moved)))
    assert failed(gate(measure, outputs, replace(live, committed=False))) == ["program"]
    unknown = Live(trouble="the stack's last update is failed; what runs is not known")
    assert {"program", "digests", "soak"} <= set(failed(gate(measure, outputs, unknown)))


def test_a_freeze_lets_nothing_pass(
    history: History, connection: Connection, outputs: StackOutputs, live: Live
) -> None:
    healthy(history)
    delivered(connection)
    frozen = replace(SETTINGS, frozen="frozen (fri-sun 16:00-06:00 UTC)")
    checks = gate(Measure(history.start(), "kilo", connection), outputs, live, settings=frozen)
    assert failed(checks) == ["freeze"]
    assert checks["freeze"].document()["reason"] == frozen.frozen


def test_a_later_stage_is_held_to_the_rows_of_those_before_it(outputs: StackOutputs, live: Live) -> None:
    with Prometheus("http://127.0.0.1:9") as nobody:
        measure = Measure(nobody, "kilo", "no database")
        rows = {stage: set(gate(measure, outputs, live, stage=stage)) for stage in ("dev", "stage", "prod-2")}
    assert rows["stage"] - rows["dev"] == {"reads and writes", "mirror-parity"}
    assert rows["prod-2"] - rows["stage"] == {"objectives", "429s", "template"}
