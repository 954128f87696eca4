"""Buckets, windows and fair shares: the arithmetic of the guard, without clock and tenants."""

from __future__ import annotations

from collections.abc import Mapping

SHORT_SECONDS = 5.0
SLOTS = 12
"""Slots of the short window's length that make the long one."""
LONG_SECONDS = SHORT_SECONDS * SLOTS
RELAX_RATIO = 0.8
"""Both windows must be below this share of the budget before the guard relaxes."""


class Bucket:
    """A token bucket that time fills, at most to ``capacity``. A clock that goes back fills nothing."""

    __slots__ = ("_at", "capacity", "level", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate, self.capacity, self.level, self._at = rate, capacity, capacity, now

    def fill(self, now: float) -> float:
        """Add what has come since, and give the level."""
        passed = now - self._at
        if passed:
            self._at = now
            if passed > 0:
                self.level = min(self.capacity, self.level + passed * self.rate)
        return self.level

    def take(self, now: float, floor: float = 0.0) -> bool:
        """Take a token if that leaves at least ``floor``."""
        if self.fill(now) < floor + 1:
            return False
        self.level -= 1
        return True


class Windows:
    """How much came in the last 5 and 60 seconds, and whether both are over: then it is tripped.

    Both windows must be over, so that neither a burst nor an old flood trips it; both must be well below the
    budget again before it relaxes, so that it does not flutter at the edge.
    """

    __slots__ = ("_current", "_slot", "_slots", "tripped")

    def __init__(self, now: float) -> None:
        self._slot = now // SHORT_SECONDS
        self._slots = [0] * SLOTS
        self._current = 0
        self.tripped = False

    def add(self, count: int, now: float, budget: float) -> None:
        """Count what came until ``now`` against ``budget`` a second."""
        slot = now // SHORT_SECONDS
        ended = slot - self._slot
        self._current += count
        if ended <= 0:
            # A clock that went back: what comes counts into the slot that was open.
            if ended < -1:
                self._slot = slot
            return
        self._slot = slot
        self._slots.append(self._current)
        self._slots.extend([0] * min(int(ended) - 1, SLOTS))
        del self._slots[:-SLOTS]
        self._current = 0
        short, long = self._slots[-1] / SHORT_SECONDS, sum(self._slots) / LONG_SECONDS
        if short > budget and long > budget:
            self.tripped = True
        elif short < budget * RELAX_RATIO and long < budget * RELAX_RATIO:
            self.tripped = False

    @property
    def long_rate(self) -> float:
        """What came a second, over the long window."""
        return sum(self._slots) / LONG_SECONDS


def fair_probabilities(rates: Mapping[str, float], budget: float) -> dict[str, float]:
    """Which share of each name's spans is kept so that all of them fit into ``budget``.

    Max-min fair: what is below an equal share is kept whole, and what is left is divided among the others. A
    name that floods so takes from itself and not from its neighbours.
    """
    kept: dict[str, float] = {}
    left, names = max(budget, 0.0), sorted(rates, key=lambda name: rates[name])
    for place, name in enumerate(names):
        rate = rates[name]
        share = min(rate, left / (len(names) - place))
        kept[name] = share / rate if rate else 1.0
        left -= share
    return kept
