"""A promotion's course, killed at every instant: it comes to an end, and what runs is what is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilo.engine import HalfDeployed, NotDeployed
from kilo.errors import CheckFailed
from kilo.promotion.conductor import Look, conduct
from kilo.promotion.record import Change, Course, Phase, Value, read_course

BEFORE: dict[str, Value] = {"outbox.workers": 0, "outbox.cdc_paused": True, "images.runtime": "kilo:1"}
AFTER: dict[str, Value] = {"outbox.workers": 1, "outbox.cdc_paused": False, "images.runtime": "kilo:2"}
CHANGES = [Change(name, BEFORE[name], AFTER[name]).document() for name in BEFORE]
START = datetime(2026, 2, 16, tzinfo=UTC)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class World:
    """A stage: its file, what runs, the log; and when the process is killed.

    Attributes:
        dies_before: the number of the act before which it is killed, counted through all processes.
        bad: what a look at the promoted stage finds.
        breaks: deployments that fail half way, by their number.
        patience: looks until what is good counts as good.
    """

    dies_before: frozenset[int] = frozenset()
    bad: bool = False
    breaks: frozenset[int] = frozenset()
    file: dict[str, Value] = field(default_factory=lambda: dict(BEFORE))
    running: dict[str, Value] = field(default_factory=lambda: dict(BEFORE))
    log: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    looks: int = 0
    patience: int = 2
    rotating: bool = False
    acts: int = 0
    deployments: int = 0

    def _act(self) -> None:
        self.acts += 1
        if self.acts in self.dies_before:
            raise Killed

    def write(self, wanted: Mapping[str, Value]) -> None:
        self._act()
        self.file.update(wanted)
        self._act()

    def deploy(self) -> Mapping[str, Any]:
        self._act()
        self.deployments += 1
        if self.deployments in self.breaks:
            self.running["outbox.workers"] = self.file["outbox.workers"]
            msg = "pulumi: a pod does not start"
            raise HalfDeployed(msg)
        self.running = dict(self.file)
        self._act()
        return {"changed": 1}

    def look(self, course: Course) -> Look:
        self._act()
        self.looks += 1
        assert self.running == {**self.running, **course.wanted}
        if self.bad:
            return Look("failed", ({"check": "lost"},), "lost: 1, not == 0")
        return Look("good" if self.looks > self.patience else "waiting", ({"check": "lost"},), "good")

    def row_off(self, course: Course) -> tuple[Change, ...]:
        wanted = {each.setting: each.before for each in course.forward if each.setting.startswith("images.")}
        weights: dict[str, Value] = {each.setting: 0 for each in course.forward if each.steps}
        off: dict[str, Value] = {**wanted, **weights, "outbox.workers": 0, "outbox.cdc_paused": True}
        return tuple(Change(name, self.file[name], value) for name, value in off.items())

    def rekey_back(self) -> None:
        self._act()
        if self.rotating:
            msg = "rotations are under way"
            raise CheckFailed(msg)

    def rehearse(self, phase: Phase) -> Mapping[str, Any]:
        self._act()
        if phase is Phase.REHEARSING:
            assert self.running["outbox.workers"] == 0
        return {"lost": 0}

    def note(self, course: Course, phase: Phase, details: Mapping[str, Any]) -> Course:
        self._act()
        self.append(phase, course.id, details)
        self._act()
        found = self.course()
        assert found
        assert found.phase is phase
        return found

    def append(self, phase: Phase, promotion: str, details: Mapping[str, Any]) -> None:
        at = (START + timedelta(seconds=len(self.log))).isoformat()
        content = {"act": phase.value, "promotion": promotion, **details}
        self.log.append({"at": at, "actor": "ana", "details": content})

    def course(self) -> Course | None:
        return read_course(self.log)

    def pause(self, seconds: float) -> None:
        self._act()

    def lead(self) -> Course:
        """Run the command again and again, as whoever finds it killed does."""
        for _ in range(100):
            course = self.course()
            assert course is not None
            try:
                return conduct(course, self, lambda _course, _look: None)
            except Killed:
                continue
            except (HalfDeployed, NotDeployed):
                continue
        pytest.fail("it comes to no end")

    @property
    def acts_recorded(self) -> list[str]:
        return [entry["details"]["act"] for entry in self.log]


def begin(world: World, changes: Any = CHANGES) -> World:
    world.append(Phase.BEGUN, "one", {"from": "dev", "release": "a" * 64, "changes": changes})
    return world


kills = st.frozensets(st.integers(1, 60), max_size=8)


@given(kills)
def test_what_is_good_is_verified_whenever_it_is_killed(dies_before: frozenset[int]) -> None:
    world = begin(World(dies_before))
    assert world.lead().phase is Phase.VERIFIED
    assert world.running == world.file == AFTER
    assert world.acts_recorded == ["begun", "deployed", "verified"]


@given(kills)
def test_what_is_bad_is_rolled_back_whenever_it_is_killed(dies_before: frozenset[int]) -> None:
    world = begin(World(dies_before, bad=True))
    course = world.lead()
    assert (course.phase, course.reason) == (Phase.ROLLED_BACK, "lost: 1, not == 0")
    assert world.running == world.file == BEFORE
    assert world.acts_recorded == ["begun", "deployed", "rolling-back", "rolled-back"]


WEIGHT = "tenants.acme.ramps.search"
STEPS = [*CHANGES, Change(WEIGHT, 0, 25, (1, 5, 25)).document()]


@given(kills, st.sampled_from([0, 1, 2, None]))
def test_weights_are_raised_step_by_step_and_each_is_looked_at(
    dies_before: frozenset[int], bad_at: int | None
) -> None:
    world = begin(World(dies_before, patience=1), STEPS)
    world.file[WEIGHT] = world.running[WEIGHT] = 0
    seen: list[Value] = []
    look = world.look

    def looked(course: Course) -> Look:
        seen.append(world.running[WEIGHT])
        world.bad = course.step == bad_at
        return look(course)

    world.look = looked  # type: ignore[method-assign]
    course = world.lead()
    reached = [1, 5, 25][: (2 if bad_at is None else bad_at) + 1]
    assert list(dict.fromkeys(seen)) == reached
    assert world.acts_recorded[:-1].count("stepping") == len(reached) - 1
    assert course.phase is (Phase.VERIFIED if bad_at is None else Phase.ROLLED_BACK)
    assert world.running == world.file
    assert world.running[WEIGHT] == (25 if bad_at is None else 0)


def test_a_promotion_is_not_verified_before_its_last_step_nor_goes_on_after_it() -> None:
    world = begin(World(), STEPS)
    world.append(Phase.DEPLOYED, "one", {})
    for act, step in ((Phase.VERIFIED, 0), (Phase.STEPPING, 1), (Phase.DEPLOYED, 1), (Phase.STEPPING, 2)):
        world.append(act, "one", {})
        course = world.course()
        assert course
        assert (course.step, course.phase.ended) == (step, False)
    world.append(Phase.DEPLOYED, "one", {})
    world.append(Phase.STEPPING, "one", {})
    course = world.course()
    assert course
    assert (course.step, course.phase) == (2, Phase.DEPLOYED)
    assert course.wanted[WEIGHT] == 25


@given(kills, st.frozensets(st.integers(1, 6), max_size=4))
def test_an_engine_that_fails_half_way_leaves_nothing_half_done(
    dies_before: frozenset[int], breaks: frozenset[int]
) -> None:
    world = begin(World(dies_before, breaks=breaks))
    course = world.lead()
    assert course.phase.ended
    assert world.running == world.file == (AFTER if course.phase is Phase.VERIFIED else BEFORE)


@given(kills)
def test_a_rehearsal_returns_whenever_it_is_killed(dies_before: frozenset[int]) -> None:
    world = World(dies_before, file=dict(AFTER), running=dict(AFTER))
    off = [
        Change(name, AFTER[name], BEFORE[name]).document() for name in ("outbox.workers", "outbox.cdc_paused")
    ]
    world.append(Phase.REHEARSING, "one", {"from": None, "release": "", "changes": off})
    assert world.lead().phase is Phase.RETURNED
    assert world.running == world.file == AFTER
    assert world.acts_recorded == ["rehearsing", "off", "returned"]


@given(kills, st.sampled_from(["begun", "deployed", "verified"]))
def test_a_promotion_is_taken_back_wherever_it_stands(dies_before: frozenset[int], at: str) -> None:
    world = begin(World(dies_before))
    if at != "begun":
        world.file.update(AFTER)
        world.running.update(AFTER)
        world.append(Phase.DEPLOYED, "one", {})
    if at == "verified":
        world.append(Phase.VERIFIED, "one", {})
    course = world.course()
    assert course
    assert course.phase == at
    back = [each.document() for each in world.row_off(course)]
    world.append(Phase.ROLLING_BACK, "one", {"from": "dev", "release": "a" * 64, "changes": back})
    assert world.lead().phase is Phase.ROLLED_BACK
    assert world.running == world.file == BEFORE


def test_what_could_not_be_carried_out_stays_where_it_is_and_is_begun_again() -> None:
    world = begin(World())
    real: Callable[[], Mapping[str, Any]] = world.deploy

    def older() -> Mapping[str, Any]:
        msg = "the plan is older than the state"
        raise NotDeployed(msg)

    world.deploy = older  # type: ignore[method-assign]
    course = world.course()
    assert course
    with pytest.raises(NotDeployed, match="older than the state"):
        conduct(course, world, lambda _course, _look: None)
    assert (world.running, world.acts_recorded) == (BEFORE, ["begun"])
    world.deploy = real  # type: ignore[method-assign]
    assert world.lead().phase is Phase.VERIFIED


def test_a_roll_back_waits_for_the_keys() -> None:
    world = begin(World(bad=True, rotating=True))
    course = world.course()
    assert course
    with pytest.raises(CheckFailed, match="rotations are under way"):
        conduct(course, world, lambda _course, _look: None)
    # What needs nobody is done at once.
    assert world.running == BEFORE
    assert world.acts_recorded[-1] == "rolling-back"
    world.rotating = False
    assert world.lead().phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    "entry",
    [
        {"act": "verified", "promotion": "two"},
        {"act": "rolled-back", "promotion": "one"},
        {"act": "verified", "promotion": "one"},
        {"act": "begun", "promotion": "two", "from": None, "release": "", "changes": []},
        {"act": "rehearsing", "promotion": "two", "from": None, "release": "", "changes": []},
        {"act": "invented", "promotion": "one"},
        {"act": "deployed"},
        {
            "act": "rolling-back",
            "promotion": "one",
            "from": None,
            "release": "",
            "changes": [{"setting": "x"}],
        },
        {
            "act": "rolling-back",
            "promotion": "one",
            "from": None,
            "release": "",
            "changes": [{"setting": "x", "before": {}, "after": None}],
        },
        {"step": "the log begins"},
        [],
    ],
    ids=str,
)
def test_an_entry_that_does_not_follow_moves_nothing(entry: Any) -> None:
    world = begin(World())
    before = world.course()
    world.log.append({"at": START.isoformat(), "actor": "mallory", "details": entry})
    assert world.course() == before
