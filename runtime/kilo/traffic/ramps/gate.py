"""The gate between two steps of a ramp: figures in, decision out, with neither clock nor network.

It compares a tenant's requests that the next version answered with the same tenant's that the stable one
answered *over the same minutes*, by errors and by slow answers:

=========  ==================================================================================================
revert     The next version is worse than the stable one by a sequential test (:mod:`.sequential`), or than
           the tenant's objective permits, *and* it burns the tenant's budget faster than allowed in the long
           window (since the step) and in the short one (its last part): it was not a moment that has passed.
hold       The budget burns but nothing is proven; both versions burn alike, so that it is not the next
           version's doing; requests were too few; the time is not up; the next version's queues are full; or
           something is not known: no figures, a gap in them, a replica without the step in force.
on         None of these, for the whole time of the step.
=========  ==================================================================================================

What is not known never leads a step forward, and alone never back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kilo.tenancy import Objective
from kilo.traffic.ramps.figures import Comparison, Figures, Interval, compare
from kilo.traffic.ramps.sequential import evidence_above, evidence_of_worse

FAST_BURN = 14.4
"""The burn rate that pages somebody (Google SRE Workbook, chapter 5): no comparison is waited for."""
FEWEST_BAD = 5
"""Below it no burn rate is one: a single failed request of a small tenant would be."""
_SHORT_SHARE = 1 / 4
"""The short window, as a share of the long one; in the Workbook's pairs it is a twelfth."""


class Verdict(StrEnum):
    """What to do with a step."""

    ON = "on"
    HOLD = "hold"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What one step is measured by.

    Attributes:
        hold_seconds: for how long the figures have to be good.
        minimum_requests: how many requests the next version must have answered; at 300 without an error, the
            true share of errors is below 1 % with a confidence of 95 % (the rule of three).
        alpha: the probability that a next version as good as the stable one is ever found worse in a step.
    """

    hold_seconds: float = 600.0
    minimum_requests: int = 300
    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class Judged:
    """One kind of badness: how fast it burns the budget, and what is proven."""

    burn_long: float = 0.0
    burn_short: float = 0.0
    stable_burn: float = 0.0
    evidence: float = 1.0
    """Of being worse than the stable version."""
    evidence_of_burning: float = 1.0
    """Of being worse than the objective permits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says, why, and the figures that it says it from."""

    verdict: Verdict
    reason: str
    seconds: float = 0.0
    """For how long the figures reach back."""
    window: Comparison = field(default_factory=Comparison)
    errors: Judged = Judged()
    slowness: Judged = Judged()

    def document(self) -> dict[str, object]:
        """As JSON, for records and machines."""

        def judged(value: Judged) -> dict[str, float]:
            return {
                "burn_long": round(value.burn_long, 3),
                "burn_short": round(value.burn_short, 3),
                "stable_burn": round(value.stable_burn, 3),
                "evidence": float(f"{value.evidence:.3g}"),
                "evidence_of_burning": float(f"{value.evidence_of_burning:.3g}"),
            }

        def counts(requests: int, errors: int, slow: int) -> dict[str, int]:
            return {"requests": requests, "errors": errors, "slow": slow}

        stable, following = self.window.stable, self.window.next
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "stable": counts(stable.requests, stable.errors, stable.slow),
            "next": counts(following.requests, following.errors, following.slow),
            "errors": judged(self.errors),
            "slowness": judged(self.slowness),
        }


def decide(figures: Figures, since: float, objective: Objective, settings: GateSettings) -> Decision:
    """Judge the step that is in force since ``since``.

    Args:
        figures: of the tenant and feature.
        since: when every replica had the step in force, in seconds since the epoch.
        objective: the tenant's.
        settings: what is asked of a step.
    """
    if figures.trouble:
        return Decision(Verdict.HOLD, figures.trouble)
    start = max(since, figures.broken_at or since)
    long = compare(figures.since(start))
    short = compare(_last_part(long.intervals, start))
    errors = _judge(long, short, "errors", 1 - objective.availability_percent / 100)
    slowness = _judge(long, short, "slow", 1 - objective.latency_percent / 100)

    def said(verdict: Verdict, reason: str) -> Decision:
        return Decision(verdict, reason, long.seconds, long, errors, slowness)

    for judged, name, bad in (
        (errors, "failing", (long.next.errors, short.next.errors)),
        (slowness, "too slow", (long.next.slow, short.next.slow)),
    ):
        if found := _burning(judged, name, bad, long, settings.alpha):
            return said(*found)
    if waiting := _waiting(figures, long, settings, " since figures were missing" if start > since else ""):
        return said(Verdict.HOLD, waiting)
    requests = f"{long.next.requests} requests, {long.next.errors} failed, {long.next.slow} too slow"
    return said(Verdict.ON, f"{requests} in {long.seconds:.0f} s")


def _waiting(figures: Figures, long: Comparison, settings: GateSettings, anew: str) -> str:
    """What is still missing before a step forward, empty when nothing is."""
    if figures.refused:
        return f"the next version's queues are full: {figures.refused} requests refused"
    if not long.intervals:
        return "no figures yet since the step is in force"
    if not long.next.requests:
        return "no traffic: the next version has answered no request"
    if long.next.requests < settings.minimum_requests:
        return f"too few requests: {long.next.requests} of {settings.minimum_requests}"
    if long.seconds < settings.hold_seconds:
        return f"{long.seconds:.0f} of {settings.hold_seconds:.0f} s{anew}"
    return ""


def _judge(long: Comparison, short: Comparison, kind: str, budget: float) -> Judged:
    def burn(window: Comparison, version: str) -> float:
        counts = getattr(window, version)
        return getattr(counts, kind) / counts.requests / budget if counts.requests else 0.0

    return Judged(
        burn_long=burn(long, "next"),
        burn_short=burn(short, "next"),
        stable_burn=burn(long, "stable"),
        evidence=evidence_of_worse(
            (
                interval.next.requests,
                getattr(interval.next, kind),
                interval.stable.requests,
                getattr(interval.stable, kind),
            )
            for interval in long.intervals
        ),
        evidence_of_burning=evidence_above(long.next.requests, getattr(long.next, kind), budget),
    )


def _burning(
    judged: Judged, name: str, bad: tuple[int, int], long: Comparison, alpha: float
) -> tuple[Verdict, str] | None:
    """What a burning budget leads to, None while none burns."""
    if judged.burn_long <= 1 or bad[0] == 0:
        return None
    burn = f"burn rate {judged.burn_long:.1f} (stable {judged.stable_burn:.1f})"
    rates = f"{name}: {bad[0]} of {long.next.requests}, {burn}"
    if bad[0] < FEWEST_BAD:
        return Verdict.HOLD, f"{rates}; fewer than {FEWEST_BAD} are no proof"
    if judged.burn_short <= 1 or bad[1] == 0:
        return Verdict.HOLD, f"{rates}, but not lately ({judged.burn_short:.1f})"
    threshold = 1 / alpha
    worse = judged.evidence >= threshold
    # Nothing to compare with: at 100 %, or where the stable version is as bad, the objective alone judges.
    alone = long.stable.requests == 0 or judged.stable_burn <= 1
    over = judged.evidence_of_burning >= threshold and alone
    if worse or (over and (judged.burn_long >= FAST_BURN or long.stable.requests == 0)):
        than = (
            f"than stable, evidence {judged.evidence:.3g}"
            if worse
            else (f"than the objective permits, evidence {judged.evidence_of_burning:.3g}")
        )
        return Verdict.REVERT, f"{rates}: worse {than}:1"
    if judged.stable_burn > 1:
        return Verdict.HOLD, f"{rates}: both versions burn the budget"
    return Verdict.HOLD, f"{rates}: not proven yet, evidence {judged.evidence:.3g} of {threshold:.0f}:1"


def _last_part(intervals: Sequence[Interval], start: float) -> Sequence[Interval]:
    """The short window: a part of what is known rather than of the time, since they come late."""
    if not intervals:
        return ()
    newest = intervals[-1]
    length = max((newest.end - start) * _SHORT_SHARE, (newest.end - newest.start) * 2)
    return [interval for interval in intervals if interval.end > newest.end - length]
