"""The gate's decisions, each a case that has to be told from the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilo.tenancy import Objective
from kilo.traffic.ramps.figures import Counts, Figures, Interval
from kilo.traffic.ramps.gate import Decision, GateSettings, Verdict, decide

OBJECTIVE = Objective(availability_percent=99.9, latency_threshold_ms=300, latency_percent=99)
SETTINGS = GateSettings(hold_seconds=600, minimum_requests=300)
STEP = 15.0

Rates = Callable[[float], tuple[Counts, Counts]]
"""At a time after the step: what the stable and the next version answer in one interval."""


def steady(stable: Counts, following: Counts) -> Rates:
    return lambda _: (stable, following)


def watch(rates: Rates, seconds: float, settings: GateSettings = SETTINGS, **known: object) -> Decision:
    """Decide at each scrape, as a ramp does, until it is not a hold, or the time is up."""
    intervals: list[Interval] = []
    decision = Decision(Verdict.HOLD, "never asked")
    for number in range(int(seconds / STEP)):
        start = number * STEP
        intervals.append(Interval(start, start + STEP, *rates(start)))
        figures = Figures(list(intervals), **known)  # pyright: ignore[reportArgumentType]
        decision = decide(figures, 0.0, OBJECTIVE, settings)
        if decision.verdict is not Verdict.HOLD:
            break
    return decision


GOOD = steady(Counts(950), Counts(50))


def test_a_version_as_good_goes_on_when_its_time_is_up() -> None:
    decision = watch(GOOD, 900)
    assert (decision.verdict, decision.seconds) == (Verdict.ON, 600)
    assert watch(GOOD, 585).reason == "585 of 600 s"


def test_a_failing_version_is_reverted_long_before() -> None:
    decision = watch(steady(Counts(950), Counts(50, errors=5)), 900)
    assert (decision.verdict, decision.seconds) == (Verdict.REVERT, STEP)
    assert "failing: 5 of 50, burn rate 100.0 (stable 0.0): worse than stable" in decision.reason


def test_a_slow_version_is_reverted() -> None:
    decision = watch(steady(Counts(950, slow=5), Counts(50, slow=10)), 900)
    assert decision.verdict is Verdict.REVERT
    assert "too slow" in decision.reason


def test_one_that_fails_after_an_hour_is_reverted_within_minutes_of_it() -> None:
    def rates(at: float) -> tuple[Counts, Counts]:
        return Counts(950), Counts(50, errors=25 if at >= 3600 else 0)

    decision = watch(rates, 7200, GateSettings(hold_seconds=7200))
    assert decision.verdict is Verdict.REVERT
    assert 3600 < decision.seconds <= 3660


def test_one_that_fails_for_large_requests_alone_is_reverted() -> None:
    """One in 200 requests is large, and all of those fail: five times the budget."""
    large = iter(range(10_000))

    def rates(_: float) -> tuple[Counts, Counts]:
        return Counts(500), Counts(500, errors=3 if next(large) % 2 else 2)

    decision = watch(rates, 900)
    assert decision.verdict is Verdict.REVERT
    assert decision.errors.burn_long == pytest.approx(5, abs=1)


def test_at_full_weight_there_is_no_stable_version_to_compare_with() -> None:
    assert watch(steady(Counts(), Counts(1000)), 900).verdict is Verdict.ON
    decision = watch(steady(Counts(), Counts(1000, errors=5)), 900)
    assert decision.verdict is Verdict.REVERT
    assert "than the objective permits" in decision.reason


def test_figures_that_come_late_are_judged_all_the_same() -> None:
    """A short window by the clock would hold nothing of what is known."""
    intervals = [Interval(n * STEP, (n + 1) * STEP, Counts(950), Counts(50, errors=50)) for n in range(2)]
    assert decide(Figures(intervals), 0.0, OBJECTIVE, SETTINGS).verdict is Verdict.REVERT


def test_what_both_versions_do_is_held_and_not_the_next_ones_fault() -> None:
    decision = watch(steady(Counts(950, errors=95), Counts(50, errors=5)), 900)
    assert decision.verdict is Verdict.HOLD
    assert "both versions burn the budget" in decision.reason


def test_what_is_over_is_held_and_not_reverted() -> None:
    """A few failures at the step itself, then none."""

    def rates(at: float) -> tuple[Counts, Counts]:
        return Counts(950), Counts(50, errors=4 if at < 15 else 0)

    decision = watch(rates, 1200)
    assert decision.verdict is Verdict.HOLD
    assert "fewer than 5 are no proof" in decision.reason


def test_no_traffic_and_a_tenth_of_what_is_needed_hold_for_ever() -> None:
    assert watch(steady(Counts(950), Counts()), 7200).reason.startswith("no traffic")
    slow = iter(range(10_000))
    decision = watch(lambda _: (Counts(95), Counts(1 if next(slow) % 2 else 0)), 900)
    assert (decision.verdict, decision.reason) == (Verdict.HOLD, "too few requests: 30 of 300")


def test_failures_in_too_little_traffic_are_reverted_all_the_same() -> None:
    assert watch(steady(Counts(19), Counts(1, errors=1)), 900).verdict is Verdict.REVERT


def test_figures_that_are_missing_hold_and_start_the_time_anew() -> None:
    assert watch(GOOD, 900, trouble="Prometheus at x does not answer").reason.startswith("Prometheus at x")
    decision = watch(GOOD, 900, broken_at=450.0)
    assert (decision.verdict, decision.reason) == (Verdict.HOLD, "450 of 600 s since figures were missing")
    assert watch(GOOD, 1200, broken_at=450.0).verdict is Verdict.ON


def test_full_queues_hold() -> None:
    assert watch(GOOD, 900, refused=3).reason == "the next version's queues are full: 3 requests refused"


COUNTS = st.integers(0, 500).flatmap(
    lambda requests: st.builds(Counts, st.just(requests), st.integers(0, requests), st.integers(0, requests))
)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=40), st.floats(0, 700), st.booleans())
def test_nothing_goes_on_without_time_traffic_and_figures(
    counts: list[tuple[Counts, Counts]], hold: float, blind: bool
) -> None:
    intervals = [Interval(n * STEP, (n + 1) * STEP, *each) for n, each in enumerate(counts)]
    figures = Figures(intervals, "no figures" if blind else None)
    asked = GateSettings(hold_seconds=hold)
    decision = decide(figures, 0.0, OBJECTIVE, asked)
    following = sum((each.next for each in intervals), Counts())
    if decision.verdict is Verdict.ON:
        assert not blind
        assert len(counts) * STEP >= hold
        assert following.requests >= asked.minimum_requests
        assert following.errors / following.requests <= 0.001 + 1e-12
    if decision.verdict is Verdict.REVERT:
        assert not blind
        assert following.errors or following.slow
    assert decision.document()["verdict"] == decision.verdict.value
