"""Looking on after a promotion: what is good, bad, and what nobody can know, which is bad in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.goals.figures import Looking
from kilo.goals.measure import Measure
from kilo.observe import metrics
from kilo.promotion.conductor import Look
from kilo.promotion.gates import GateSettings, check_first
from kilo.promotion.verification import look_at

from .conftest import History
from .test_gates import delivered, healthy

Connection = psycopg.Connection[tuple[Any, ...]]
SETTINGS = GateSettings(soak_hours=24)
IMAGE = "registry/kilo@sha256:a"
STATE: dict[str, Any] = {"deployment": {"resources": [{"inputs": {"spec": {"image": IMAGE}}}]}}


def look(measure: Measure, outputs: StackOutputs, ago: float = 100, soak: float = 90, **changes: Any) -> Look:
    looking = Looking(outputs.model_copy(update={"stage": "dev"}), state=changes.get("state", STATE))
    images = changes.get("images", (IMAGE,))
    return look_at(measure, looking, SETTINGS, time.time() - ago, soak, images)


@pytest.fixture
def good(history: History, connection: Connection) -> Callable[[], Measure]:
    healthy(history)
    delivered(connection)
    return lambda: Measure(history.start(), "kilo", connection)


def test_what_was_good_for_its_soak_is_good(good: Callable[[], Measure], outputs: StackOutputs) -> None:
    measure = good()
    assert look(measure, outputs, soak=200).verdict == "waiting"
    found = look(measure, outputs)
    assert (found.verdict, [each["check"] for each in found.figures if each["verdict"] != "passed"]) == (
        "good",
        [],
    )


def test_a_lost_event_is_bad_at_once(
    history: History, good: Callable[[], Measure], outputs: StackOutputs
) -> None:
    history.add(f'{metrics.OUTBOX_LOST.name}{{pod="b"}}', 2, ages=(20, 10, 1))
    found = look(good(), outputs, soak=10_000)
    assert found.verdict == "failed"
    assert found.reason.startswith("lost: 2, not == 0")


def test_a_new_page_is_bad_at_once_and_one_of_before_is_waited_out(
    history: History, good: Callable[[], Measure], outputs: StackOutputs
) -> None:
    old = 'ALERTS{alertname="OutboxWorkerDown", alertstate="firing", severity="page"}'
    history.add(old, 1, ages=tuple(float(age) for age in range(200, 0, -5)))
    measure = good()
    found = look(measure, outputs)
    assert (found.verdict, found.reason) == ("waiting", "pages now: 1, not == 0")
    # It has begun after this one.
    found = look(measure, outputs, ago=220, soak=10_000)
    assert (found.verdict, found.reason) == ("failed", "new pages: 1, not == 0")


def test_a_page_of_before_that_does_not_end_is_bad_in_the_end(
    history: History, good: Callable[[], Measure], outputs: StackOutputs
) -> None:
    history.add(
        'ALERTS{alertname="OutboxLag", alertstate="firing", severity="page"}',
        1,
        ages=tuple(float(age) for age in range(600, 0, -5)),
    )
    found = look(good(), outputs, ago=300, soak=90)
    assert found.verdict == "failed"
    assert "pages now: 1" in found.reason


def test_what_nobody_can_know_is_waited_for_and_bad_in_the_end(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    measure = Measure(history.start(), "kilo", connection)
    assert look(measure, outputs, ago=30).verdict == "waiting"
    assert look(measure, outputs, ago=100).verdict == "waiting"
    found = look(measure, outputs, ago=300)
    assert found.verdict == "failed"
    assert "new pages: Prometheus has no sample of" in found.reason
    assert "lost: no event was taken in within the window" in found.reason


@pytest.mark.parametrize("ahead", [600, -600])
def test_a_clock_that_is_wrong_verifies_nothing(
    history: History, connection: Connection, outputs: StackOutputs, ahead: float
) -> None:
    healthy(history)
    delivered(connection)
    skewed = Measure(history.start(), "kilo", connection, clock=lambda: time.time() + ahead)
    looking = Looking(outputs.model_copy(update={"stage": "dev"}), state=STATE)
    found = look_at(skewed, looking, SETTINGS, time.time() + ahead - 300, 90, (IMAGE,))
    assert found.verdict == "failed"
    assert "clocks differ" in found.reason


def test_what_was_carried_out_in_the_future_is_not_judged(
    good: Callable[[], Measure], outputs: StackOutputs
) -> None:
    with pytest.raises(CheckFailed, match="in the future: a clock is wrong"):
        look(good(), outputs, ago=-600)


def test_images_that_do_not_run_are_bad(good: Callable[[], Measure], outputs: StackOutputs) -> None:
    measure = good()
    found = look(measure, outputs, images=(IMAGE, "registry/kilo@sha256:b"))
    assert (found.verdict, found.reason) == ("failed", "images: 1, not == 0")
    found = look(measure, outputs, state="the engine does not say", ago=400)
    assert found.verdict == "failed"
    assert "images: the engine does not say" in found.reason


def test_dev_asks_for_the_outbox_an_event_and_no_freeze(history: History, connection: Connection) -> None:
    measure = Measure(history.start(), "kilo", connection)
    checks = {each.name: each for each in check_first(measure, SETTINGS)}
    assert [name for name, each in checks.items() if not each.passed] == ["SDK wired"]
    delivered(connection)
    frozen = GateSettings(soak_hours=24, frozen="frozen (fri-sun 16:00-06:00 UTC)")
    checks = {each.name: each for each in check_first(measure, frozen)}
    assert [name for name, each in checks.items() if not each.passed] == ["freeze"]
    nothing = Measure(measure.prometheus, "kilo", "no database")
    assert not [each for each in check_first(nothing, SETTINGS) if each.name != "freeze" and each.passed]
