"""What the guard promises of budgets, reserves, estimates and names, under attack and over a day."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilo.observe.sampling import guard
from kilo.observe.sampling.allowance import NAMES
from kilo.observe.sampling.budget import fair_probabilities
from kilo.observe.sampling.guard import UNKNOWN
from kilo.observe.sampling.probability import SPACE
from tests.runtime.observe.sampling.support import Simulation

BUDGET = 20.0


def test_what_fits_the_budget_is_kept_whole_and_untripped() -> None:
    simulation = Simulation({"acme": BUDGET})
    simulation.seconds(120, BUDGET * 0.9, lambda _: simulation.span("acme"))
    assert simulation.kept == simulation.sent
    assert not simulation.guard.states()["acme"].tripped


def test_a_burst_that_the_bucket_holds_is_kept_whole() -> None:
    simulation = Simulation({"acme": BUDGET})
    simulation.seconds(60, 1, lambda _: simulation.span("acme"))
    simulation.seconds(1, BUDGET * 1.4, lambda _: simulation.span("acme"))
    assert simulation.kept == simulation.sent
    assert not simulation.guard.states()["acme"].tripped, "the long window is not over"


def test_a_flood_trips_it_and_its_end_relaxes_it() -> None:
    simulation = Simulation({"acme": BUDGET})
    seen: list[bool] = []

    def watch(_: int) -> None:
        simulation.span("acme")
        seen.append(simulation.guard.states()["acme"].tripped)

    simulation.seconds(30, 5 * BUDGET, watch)
    assert seen[-1]
    assert seen.count(True) == len(seen) - seen.index(True), "it does not flutter"
    simulation.seconds(20, BUDGET * 0.9, lambda _: simulation.span("acme"))
    assert simulation.guard.states()["acme"].tripped, "the long window is still over"
    simulation.seconds(70, BUDGET * 0.7, lambda _: simulation.span("acme"))
    assert not simulation.guard.states()["acme"].tripped
    before = simulation.kept["work"], simulation.sent["work"]
    simulation.seconds(10, BUDGET * 0.7, lambda _: simulation.span("acme"))
    assert simulation.kept["work"] - before[0] == simulation.sent["work"] - before[1]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.2, 1.0, 1.3, 6.0]),  # of the budget
            st.integers(5, 40),  # seconds
            st.sampled_from(["random", "all", "none"]),  # what the trace ids say
            st.sampled_from(["work", "key", "failed"]),
            st.sampled_from([0.0, -3600.0, 0.5, 3600.0]),  # a step of the clock
        ),
        min_size=1,
        max_size=8,
    )
)
def test_no_minute_exceeds_the_budget_and_five_percent(
    plan: list[tuple[float, int, str, str, float]],
) -> None:
    simulation = Simulation({"acme": BUDGET}, allowed=("key",))
    at = 0
    for rate, seconds, ids, kind, step in plan:
        simulation.now += step
        chosen = {"random": None, "all": SPACE - 1, "none": 0}[ids]
        for place in range(round(rate * BUDGET * seconds)):
            kept = simulation.span(
                "acme", "key" if kind == "key" else "work", failed=kind == "failed", randomness=chosen
            )
            # Counted by the time that really passed, whatever the clock says.
            simulation.kept_by_second["real", at + int(place / (rate * BUDGET))] += kept
            simulation.now += 1 / (rate * BUDGET)
        at += seconds
    steps = sum(1 for *_, step in plan if step > 0)
    # A clock that jumps ahead fills the bucket once more.
    assert simulation.most_in("real", 60) <= BUDGET * 60 * 1.05 + 1 + steps * BUDGET * 3


def test_key_spans_are_never_lost_to_a_flood_of_others() -> None:
    simulation = Simulation({"acme": BUDGET}, allowed=("key",))

    def send(place: int) -> None:
        simulation.span("acme", randomness=SPACE - 1)
        if place % 100 == 0:
            assert simulation.span("acme", "key", randomness=0)
        if place % 100 == 50:
            simulation.span("acme", failed=True, randomness=SPACE - 1)

    simulation.seconds(120, 10 * BUDGET, send)
    assert simulation.kept["key"] == simulation.sent["key"] == 240
    assert simulation.most_in("acme", 60) <= BUDGET * 60 * 1.05


def test_a_flood_of_key_spans_does_not_break_the_budget_nor_take_from_errors() -> None:
    simulation = Simulation({"acme": BUDGET}, allowed=("key",))
    lost = 0

    def send(place: int) -> None:
        nonlocal lost
        simulation.span("acme", "key", randomness=SPACE - 1)
        if place % 100 == 0:
            lost += not simulation.span("acme", failed=True, randomness=0)

    simulation.seconds(120, 10 * BUDGET, send)
    assert simulation.most_in("acme", 60) <= BUDGET * 60 * 1.05
    assert lost == 0


def test_a_hostile_tenant_takes_nothing_from_others() -> None:
    simulation = Simulation({"acme": BUDGET, "globex": BUDGET})

    def send(place: int) -> None:
        simulation.span("acme", f"name-{place}", {f"key-{place}": place}, randomness=SPACE - 1)
        if place % 20 == 0:
            assert simulation.span("globex", "calm")

    simulation.seconds(60, 10 * BUDGET, send)
    states = simulation.guard.states()
    assert states["acme"].tripped
    assert not states["globex"].tripped
    assert len(states["acme"].names) <= NAMES + 1
    assert states["acme"].attribute == "too-many-attributes"


def test_a_flooding_name_takes_from_itself_and_not_from_its_neighbours() -> None:
    simulation = Simulation({"acme": BUDGET})

    def send(place: int) -> None:
        simulation.span("acme", "loud")
        if place % 50 == 0:
            simulation.span("acme", "quiet")

    simulation.seconds(30, 10 * BUDGET, send)
    before = simulation.kept["quiet"], simulation.sent["quiet"]
    simulation.seconds(60, 10 * BUDGET, send)
    kept, sent = (simulation.kept["quiet"] - before[0], simulation.sent["quiet"] - before[1])
    assert kept / sent > 0.95


@pytest.mark.parametrize("rate", [2.0, 10.0])
def test_weights_estimate_what_was_sent(rate: float) -> None:
    simulation = Simulation({"acme": BUDGET}, allowed=("key",))

    def send(place: int) -> None:
        name = "key" if place % 97 == 0 else f"route-{place % 5}"
        simulation.span("acme", name, failed=place % 31 == 0)

    simulation.seconds(180, rate * BUDGET, send)
    estimated, sent = sum(simulation.estimated.values()), simulation.sent.total()
    assert estimated == pytest.approx(sent, rel=0.06)
    state = simulation.guard.states()["acme"]
    # And what was not kept is counted, to the span.
    assert state.seen == sent == sum(state.kept.values()) + sum(state.overflow.values())


def test_the_attribute_whose_values_grew_is_named() -> None:
    simulation = Simulation({"acme": BUDGET})

    def calm(place: int) -> None:
        simulation.span(
            "acme", "work", {"id": f"order-{place}", "route": place % 5, "sql": f"SELECT {place % 3}"}
        )

    def bomb(place: int) -> None:
        simulation.span(
            "acme", "work", {"id": f"order-{place}", "route": place % 5, "sql": f"SELECT {place}"}
        )

    simulation.seconds(400, BUDGET * 0.8, calm)
    simulation.seconds(60, BUDGET * 10, bomb)
    state = simulation.guard.states()["acme"]
    assert state.attribute == "sql"
    assert state.overflow["sql"] > 0
    assert not any("SELECT" in text for text in (*state.names, *state.overflow)), "no value is given out"


def test_more_of_the_same_is_volume() -> None:
    simulation = Simulation({"acme": BUDGET})

    def send(place: int) -> None:
        simulation.span("acme", "work", {"id": place, "route": place % 5})

    simulation.seconds(400, BUDGET * 0.8, send)
    simulation.seconds(60, BUDGET * 10, send)
    assert simulation.guard.states()["acme"].attribute == "volume"


def test_names_that_differ_every_time_are_named() -> None:
    simulation = Simulation({"acme": BUDGET})
    simulation.seconds(400, BUDGET * 0.8, lambda _: simulation.span("acme", "work"))
    simulation.seconds(60, BUDGET * 10, lambda place: simulation.span("acme", f"GET /orders/{place}"))
    assert simulation.guard.states()["acme"].attribute == "span-name"


def test_copies_that_share_an_allowance_keep_no_more_than_one() -> None:
    copies = [Simulation({"acme": BUDGET}, share=1 / 4) for _ in range(4)]
    for copy in copies:
        copy.seconds(120, 5 * BUDGET, lambda _, copy=copy: copy.span("acme"))
    assert sum(copy.most_in("acme", 60) for copy in copies) <= BUDGET * 60 * 1.05


def test_a_restart_costs_one_burst_at_most() -> None:
    kept = 0
    for _ in range(10):
        simulation = Simulation({"acme": BUDGET})
        simulation.seconds(60, 5 * BUDGET, lambda _, of=simulation: of.span("acme"))
        kept += simulation.kept["work"]
    assert kept <= 10 * (BUDGET * 60 + 3 * BUDGET)


def test_what_is_of_no_known_tenant_shares_one_allowance() -> None:
    simulation = Simulation({"acme": BUDGET})
    simulation.seconds(60, 100, lambda place: simulation.span(f"made-up-{place}"))
    assert set(simulation.guard.states()) == {UNKNOWN}
    assert simulation.kept.total() <= 10 * 60 * 1.05


def test_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TENANTS", 500)
    tenants = {f"t{number}": BUDGET for number in range(600)}
    simulation = Simulation(tenants)
    tracemalloc.start()
    try:
        for place in range(40):
            for tenant in tenants:
                simulation.span(tenant, f"name-{place}", {f"key-{place}": place})
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(simulation.guard.states()) == 501, "and those who share"
    # 80 MB for 10,000 tenants that each do their worst; the sketches, 24 of 64 bytes each, are outside.
    assert used / 500 < 8192


def test_a_day_in_simulated_time() -> None:
    budget = 1.0
    simulation = Simulation({"acme": budget}, allowed=("key",))
    lost = 0

    def send(place: int) -> None:
        nonlocal lost
        simulation.span("acme", f"route-{place % 3}", {"id": place})
        if place % 100 == 0:
            lost += not simulation.span("acme", "key")

    # Calm, then two minutes of a flood, every half hour; the clock steps now and then.
    for half_hour in range(48):
        simulation.seconds(1680, budget / 2, send)
        simulation.seconds(120, budget * 8, send)
        if half_hour % 10 == 0:
            simulation.now -= 5
    assert lost == 0
    assert simulation.most_in("acme", 60) <= budget * 60 * 1.05 + 10
    # Each flood's first second comes before its threshold: that much weights leave out, and counts do not.
    assert sum(simulation.estimated.values()) == pytest.approx(simulation.sent.total(), rel=0.12)
    state = simulation.guard.states()["acme"]
    assert state.seen == simulation.sent.total()


@given(st.dictionaries(st.text(max_size=4), st.floats(0, 1e6), max_size=6), st.floats(0, 1e6))
def test_shares_are_fair_and_fill_the_budget(rates: dict[str, float], budget: float) -> None:
    kept = fair_probabilities(rates, budget)
    assert all(0 <= share <= 1 for share in kept.values())
    total = sum(kept[name] * rate for name, rate in rates.items())
    assert total <= budget * (1 + 1e-9) + 1e-6
    assert total == pytest.approx(min(budget, sum(rates.values())), rel=1e-6, abs=1e-6)
    for name, rate in rates.items():
        for other, more in rates.items():
            if rate <= more:
                assert kept[name] >= kept[other] - 1e-9
