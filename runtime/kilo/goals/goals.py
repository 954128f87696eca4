"""The sprint's goals as data: what each asks, its bound, and where its live figure comes from.

The goals are those of section 2 of the sprint's plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kilo.goals import figures
from kilo.goals.figures import Look, Looking
from kilo.goals.measure import Bound, Figure, Measure, Verdict
from kilo.goals.past import NONE_YET, Past, moments, read_past
from kilo.observe import foreign, metrics

FIELDS = 2
"""How many sensitive fields each gold tenant has encrypted."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Attributes:
        name: short, for commands.
        asks: the sprint's words, shortened.
        bound: what the figure must be.
        source: where the figure comes from, for whoever asks again.
        look: takes the figure.
    """

    name: str
    asks: str
    bound: Bound
    source: str
    look: Look


@dataclass(frozen=True, slots=True)
class Standing:
    """A goal with its figure.

    Attributes:
        goal: which.
        figure: the live one.
        past: what it was, the latest first.
    """

    goal: Goal
    figure: Figure
    past: Sequence[Past] = ()

    @property
    def verdict(self) -> Verdict:
        """Met, missed or unknown."""
        return self.goal.bound.judge(self.figure)

    @property
    def trend(self) -> str:
        """How the figure moved since each moment of which there is one."""
        said = [f"{self.moved(each)} since {each.moment.name}" for each in self.past if self.moved(each)]
        return ", ".join(said).replace("since before", "since") or NONE_YET

    def moved(self, past: Past) -> str:
        """How the figure moved since a moment, in words; nothing where one of the two is not known."""
        if self.figure.value is None or past.figure.value is None:
            return ""
        moved = self.figure.value - past.figure.value
        return "steady" if moved == 0 else f"{'+' if moved > 0 else '-'}{self.goal.bound.show(abs(moved))}"

    def shown(self, past: Past) -> str:
        """A figure of the past as a table has it."""
        return NONE_YET if past.figure.value is None else self.goal.bound.show(past.figure.value)

    def document(self, now: float) -> dict[str, Any]:
        """The JSON form; ``now`` is in seconds since the epoch."""
        figure = self.figure
        return {
            "goal": self.goal.name,
            "asks": self.goal.asks,
            "verdict": self.verdict.value,
            "value": figure.value,
            "shown": self.goal.bound.show(figure.value),
            "bound": str(self.goal.bound),
            "unit": self.goal.bound.unit,
            "trend": self.trend,
            "past": [
                {
                    "when": each.moment.name,
                    "at": round(now - each.moment.ago, 1),
                    "value": each.figure.value,
                    "shown": self.shown(each),
                    "moved": self.moved(each) or None,
                    "reason": each.figure.trouble,
                }
                for each in self.past
            ],
            "source": self.goal.source,
            "sampled_at": figure.sampled_at,
            "age_seconds": None if figure.sampled_at is None else round(now - figure.sampled_at, 1),
            "reason": figure.trouble,
            "evidence": dict(figure.evidence),
        }


GOALS = (
    Goal(
        "outbox-share",
        "Share of ingest that outbox and CDC carried",
        Bound(">=", 0.95, "%"),
        "database: events of the window that the inbox or a dead letter has",
        figures.outbox_share,
    ),
    Goal(
        "lost",
        "Events lost",
        Bound("==", 0),
        f"database: events that nothing has; Prometheus: {metrics.OUTBOX_LOST.name}",
        figures.lost,
    ),
    Goal(
        "duplicates",
        "Rate of duplicates",
        Bound("<=", 0.001, "%"),
        "database: inbox.duplicates of the window's deliveries",
        figures.duplicates,
    ),
    Goal(
        "fle-fields",
        "Fields that lie encrypted, of the gold tenant that has fewest",
        Bound(">=", FIELDS),
        f"Prometheus: {metrics.FLE_COVERAGE.name}; outputs: encrypted_fields",
        figures.encrypted_fields,
    ),
    Goal(
        "fle-rotation",
        "Key rotations that the runbook brought to their end",
        Bound(">=", 1),
        "database: the audit log's finalized plans of kind rekey",
        figures.rotations,
    ),
    Goal(
        "mirror-lag",
        "Longest time from a push to its mirrored image",
        Bound("<", 300, "s"),
        f"Prometheus: {metrics.MIRROR_DURATION.name}, {metrics.MIRROR_LAG.name}",
        figures.mirror_lag,
    ),
    Goal(
        "mirror-parity",
        "Differences of images, SBOMs and provenance",
        Bound("==", 0),
        f"Prometheus: {metrics.MIRROR_DRIFT.name}, {metrics.MIRROR_COMPARED_LAST_SUCCESS.name}",
        figures.mirror_differences,
    ),
    Goal(
        "template",
        "From the template to a green preview",
        Bound("<", 600, "s"),
        "the record of the last preview of a new service",
        figures.template_to_preview,
    ),
    Goal(
        "ramp",
        "Breaches of objectives of tenants whose ramp came to its end",
        Bound("==", 0),
        f"database: ramps; Prometheus: {foreign.ALERTS.name} of burns, budgets and unserved tenants",
        figures.ramp_breaches,
    ),
    Goal(
        "dashboards",
        "Tenants' dashboards that are not published",
        Bound("==", 0),
        "the stack's state: ConfigMaps with the dashboards",
        figures.dashboards_missing,
    ),
    Goal(
        "burn-alerts",
        "Burn alerts that are not evaluated",
        Bound("==", 0),
        "Prometheus: its rules, their health and last evaluation",
        figures.burns_not_evaluated,
    ),
)
"""Section 2 of the sprint's plan."""


def read_goals(measure: Measure, looking: Looking) -> list[Standing]:
    """Every goal as it stands now; one that can't be measured does not keep the others from it."""
    at = moments(measure, looking.outputs.stage)
    return [
        Standing(goal, goal.look(measure, looking), read_past(goal.look, measure, looking, at))
        for goal in GOALS
    ]
