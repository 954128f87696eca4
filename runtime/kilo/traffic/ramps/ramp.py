"""One ramp: its plan, where it stands, and what it does next. Pure values and functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from kilo.errors import BadInput
from kilo.tenancy import RampWeight
from kilo.traffic.features import SHADOW
from kilo.traffic.ramps.gate import GateSettings

DEFAULT_STEPS: tuple[RampWeight, ...] = (1, 5, 25, 50, 100)


class State(StrEnum):
    """Where a ramp stands."""

    RUNNING = "running"
    PAUSED = "paused"
    REVERTING = "reverting"
    DONE = "done"
    REVERTED = "reverted"
    OVERRIDDEN = "overridden"
    """Somebody set the weight to something else, which wins."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is done."""
        return self in {State.DONE, State.REVERTED, State.OVERRIDDEN}


@dataclass(frozen=True, slots=True)
class Ramp:
    """A tenant's ramp of one feature, as the database has it.

    Attributes:
        steps: the weights to come to, in order.
        weight_before: what a revert goes back to.
        weight: what the ramp has set last.
        pending: what it has begun to set and has not yet seen in force everywhere.
        in_force_since: when every gateway had ``weight``.
        reason: why it stands where it stands.
        figures: the gate's last, as it documents them.
    """

    id: int
    tenant: str
    feature: str
    steps: tuple[RampWeight, ...]
    gate: GateSettings
    state: State
    weight_before: RampWeight
    weight: RampWeight
    pending: RampWeight | None
    pending_since: datetime | None
    in_force_since: datetime | None
    reason: str
    figures: dict[str, Any] | None
    started_by: str
    started_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """Whom and what it is of."""
        return self.tenant, self.feature

    @property
    def following(self) -> RampWeight | None:
        """The step after ``weight``, None after the last."""
        later: list[RampWeight] = [step for step in self.steps if rank(step) > rank(self.weight)]
        return later[0] if later else None


def rank(weight: RampWeight) -> float:
    """The order of weights: nothing, copies, then percentages."""
    return 0.5 if weight == SHADOW else float(weight)


def parse_weight(text: str) -> RampWeight:
    """Read a weight as it is written in files and flags.

    Raises:
        BadInput: it is neither ``shadow`` nor a whole percentage.
    """
    if text == SHADOW:
        return SHADOW
    if not text.isascii() or not text.isdigit() or int(text) > 100:
        msg = f"'{text}' is no weight; use a whole percentage of 0 to 100, or {SHADOW}"
        raise BadInput(msg)
    return int(text)


def plan_steps(steps: Sequence[RampWeight], to: int, current: RampWeight) -> tuple[RampWeight, ...]:
    """The steps from ``current`` up to ``to``.

    Raises:
        BadInput: the steps do not rise, or there is nothing left to raise.
    """
    if any(rank(later) <= rank(earlier) for earlier, later in pairwise(steps)):
        msg = f"--steps: {','.join(map(str, steps))} do not rise; give each step more than the one before"
        raise BadInput(msg)
    if rank(current) >= to:
        msg = f"--to: {to} is not above the weight that there is, {current}; `kilo traffic revert` lowers it"
        raise BadInput(msg)
    planned: list[RampWeight] = [step for step in steps if rank(current) < rank(step) < to]
    return (*planned, to)
