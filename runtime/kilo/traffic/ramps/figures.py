"""What the gate decides from: counts of both versions over the same minutes, and what is missing of them.

Pure values. Where they come from is :mod:`kilo.traffic.ramps.counted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of one version, without those that were refused for the tenant's limit (429)."""

    requests: int = 0
    errors: int = 0
    """Answered with a server error (5xx)."""
    slow: int = 0
    """Slower than the tenant's objective permits."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.errors + other.errors, self.slow + other.slow)


@dataclass(frozen=True, slots=True)
class Interval:
    """The time between two scrapes, in seconds since the epoch."""

    start: float
    end: float
    stable: Counts = Counts()
    next: Counts = Counts()


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that is known of one tenant and feature since a moment.

    Attributes:
        intervals: without a gap between them, oldest first; what was before a gap is left out.
        trouble: why nothing can be said at all, None when something can.
        broken_at: the end of the last gap, None without one: what was held before it is held again.
        refused: requests that the next version's full queues refused in the last interval.
    """

    intervals: Sequence[Interval] = ()
    trouble: str | None = None
    broken_at: float | None = None
    refused: int = 0

    def since(self, moment: float) -> Sequence[Interval]:
        """The intervals that begin at or after ``moment``."""
        return [interval for interval in self.intervals if interval.start >= moment]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both versions over one window."""

    seconds: float = 0.0
    stable: Counts = Counts()
    next: Counts = Counts()
    intervals: Sequence[Interval] = field(default=(), repr=False)


def compare(intervals: Sequence[Interval]) -> Comparison:
    """Sum the intervals."""
    stable, following = Counts(), Counts()
    for interval in intervals:
        stable, following = stable + interval.stable, following + interval.next
    seconds = intervals[-1].end - intervals[0].start if intervals else 0.0
    return Comparison(seconds, stable, following, intervals)
