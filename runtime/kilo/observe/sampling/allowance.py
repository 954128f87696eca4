"""One tenant's allowance of spans: what of it is kept, by name, and when it is over.

The allowance a second fills one bucket, from which every kept span takes. Two reserves are parts of it: one
for the allow list, one for failed and slow traces. Ordinary spans leave what the reserves may need, so that
no flood of theirs takes a token from a key span; a flood of key spans has the reserve and then waits like the
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kilo.observe.sampling.budget import LONG_SECONDS, SHORT_SECONDS, Bucket, Windows, fair_probabilities
from kilo.observe.sampling.cardinality import VOLUME, Attributes
from kilo.observe.sampling.probability import probability_of, threshold_of

Kept = Literal["share", "allowed", "failed"]
"""Why a span was kept: it passed its name's threshold, or had a token of one of the reserves."""

BURST_SECONDS = 0.04 * LONG_SECONDS
"""The bucket holds so much: over a minute and more, what is kept is at most the allowance and 5 %, with what
was taken from the bucket for spans to come."""
LEAST_BURST = 10.0
"""Spans that the bucket holds at least, where the allowance is too small to sample by."""
NAMES = 32
"""Span names of one tenant with a share of their own; further ones have one together."""
OTHER = "other"
RESERVE = 0.2
"""Each reserve's part of the allowance."""

_TICK_SECONDS = 1.0
_FORGOTTEN_RATE = 0.01
_PRESSED_SECONDS = 0.05
_CREDIT = 64
"""Tokens that are taken from the bucket at once, and at most a quarter of what ordinary spans may take."""
_LOOK_EVERY = 16
"""Of so many spans one is looked at for what grew, of four times as many while nothing is limited: looking
costs as much as deciding does."""


class _Name:
    __slots__ = ("count", "rate", "threshold")

    def __init__(self) -> None:
        self.count, self.rate, self.threshold = 0, 0.0, 0


@dataclass(frozen=True, slots=True)
class State:
    """What one tenant's guard does now, for whoever asks.

    Attributes:
        seen: spans that reached it since it began.
        kept: of these, by why.
        overflow: of these, counted and dropped, by the attribute that had grown.
        names: which share of each name's spans is kept now.
    """

    tripped: bool
    attribute: str
    budget: float
    rate: float
    seen: int
    kept: Mapping[Kept, int]
    overflow: Mapping[str, int]
    names: Mapping[str, float]


class Allowance:
    """The guard of one tenant. Not for several threads at once; :class:`.guard.Guard` has the lock."""

    __slots__ = (
        "_allowed",
        "_attribute",
        "_attributes",
        "_budget",
        "_counted",
        "_credit",
        "_due",
        "_failed",
        "_floor",
        "_looked",
        "_names",
        "_reserved",
        "_shared_out",
        "_ticked",
        "_total",
        "_windows",
        "limited",
        "overflow",
        "reserved",
        "seen",
        "shared",
    )

    def __init__(self, budget: float, now: float) -> None:
        burst = max(BURST_SECONDS * budget, LEAST_BURST)
        self._budget = budget
        self._total = Bucket(budget, burst, now)
        self._allowed = Bucket(RESERVE * budget, RESERVE * burst, now)
        self._failed = Bucket(RESERVE * budget, RESERVE * burst, now)
        self._floor = 2 * RESERVE * burst
        # Tokens that were taken from the bucket already, for ordinary spans to come.
        self._credit = 0
        self._windows = Windows(now)
        self._names: dict[str, _Name] = {}
        self._attributes: Attributes | None = None
        self._attribute = VOLUME
        self._ticked, self._due, self._counted = now, now + _TICK_SECONDS, 0
        self._shared_out, self._reserved = now, 0
        self.limited = False
        """Whether any name has a threshold now."""
        self.seen, self._looked = 0, 0
        self.shared = 0
        """Spans that passed their name's threshold."""
        self.reserved: dict[Kept, int] = {"allowed": 0, "failed": 0}
        """Spans that had a token of a reserve."""
        self.overflow: dict[str, int] = {}

    def threshold(self, name: str, now: float) -> int:
        """What the randomness of a trace must reach for spans of ``name`` to be kept now."""
        if now >= self._due or now < self._ticked:
            self._tick(now)
        # Where no name is limited, no name has a threshold yet.
        return (self._names.get(name) or self._name(name)).threshold if self.limited else 0

    def allows(self, now: float) -> bool:
        """Whether the reserve of the allow list has a token now."""
        return self._allowed.fill(now) >= 1

    def calm(self, name: str) -> bool:
        """Keep a span of ``name`` if no name is limited and tokens are at hand; nothing else is looked at.

        Every 64th span at least goes the long way, by :meth:`offer`, and with it the clock and the look at
        attributes.
        """
        entry = self._names.get(name)
        if self._credit <= 1 or self.limited or entry is None:
            return False
        self._credit -= 1
        self.seen += 1
        entry.count += 1
        self.shared += 1
        return True

    def count_dropped(self, name: str) -> bool:
        """Count a span of ``name`` that its threshold drops, if its attributes need no look now.

        It began with :meth:`threshold`, which has looked at the clock.
        """
        entry = self._names.get(name)
        if entry is None or self.seen + 1 >= self._looked:
            return False
        self.seen += 1
        entry.count += 1
        self.overflow[self._attribute] = self.overflow.get(self._attribute, 0) + 1
        return True

    def offer(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        now: float,
        *,
        sampled: bool,
        failed: bool,
        allowed: bool,
    ) -> Kept | None:
        """Decide about one span that has ended; none when it goes into the overflow.

        Args:
            name: the span's.
            attributes: the span's, only looked at.
            now: seconds of a clock that does not go back.
            sampled: whether its trace's randomness passes its threshold.
            failed: whether its trace failed or was slow.
            allowed: whether it is on the allow list.
        """
        if now >= self._due or now < self._ticked:
            self._tick(now)
        self.seen += 1
        if self.seen >= self._looked:
            self._looked = self.seen + (_LOOK_EVERY if self.limited else 4 * _LOOK_EVERY)
            self._look(name, attributes)
        if allowed and self._allowed.take(now):
            return self._keep("allowed", now)
        if failed and self._failed.take(now):
            return self._keep("failed", now)
        entry = self._names.get(name) or self._name(name)
        entry.count += 1
        if sampled and (self._credit or self._borrow(now)):
            self._credit -= 1
            self.shared += 1
            return "share"
        self.overflow[self._attribute] = self.overflow.get(self._attribute, 0) + 1
        return None

    def state(self, now: float) -> State:
        """What it does now."""
        if now >= self._due or now < self._ticked:
            self._tick(now)
        return State(
            self._windows.tripped,
            self._attribute,
            self._budget,
            self._windows.long_rate,
            self.seen,
            {"share": self.shared, **self.reserved},
            dict(self.overflow),
            {name: probability_of(entry.threshold) for name, entry in self._names.items()},
        )

    def _keep(self, why: Kept, now: float) -> Kept:
        # The floor of ordinary spans leaves room for both reserves, so that there is a token.
        self._total.fill(now)
        self._total.level -= 1
        self.reserved[why] += 1
        self._reserved += 1
        return why

    def _borrow(self, now: float) -> bool:
        """Take tokens for some ordinary spans at once, so that most of them need not ask what time it is."""
        room = int(self._total.fill(now) - self._floor)
        if room > 0:
            self._credit = max(1, min(room // 4, _CREDIT))
            self._total.level -= self._credit
            return True
        if now - self._shared_out >= _PRESSED_SECONDS:
            # More than the last second foretold: raise the thresholds now and not at its end.
            self._share_out(now)
        return False

    def _name(self, name: str) -> _Name:
        entry = self._names.get(name)
        if entry is None:
            if len(self._names) >= NAMES:
                name = OTHER
                entry = self._names.get(name)
            if entry is None:
                entry = self._names[name] = _Name()
        return entry

    def _look(self, name: str, attributes: Mapping[str, Any] | None) -> None:
        if self._attributes is None:
            self._attributes = Attributes()
        self._attributes.see(name, attributes)

    def _tick(self, now: float) -> None:
        passed, self._ticked = now - self._ticked, now
        count, self._counted = self.seen - self._counted, self.seen
        self._windows.add(count, now, self._budget)
        tripped = self._windows.tripped
        if self._attributes is not None:
            if tripped:
                self._attribute = self._attributes.grown()
            elif not tripped and count <= passed * self._budget:
                self._attributes.become_usual()
        if not tripped:
            self._attribute = VOLUME
        self._share_out(now)
        self._due = now + (_TICK_SECONDS if self.limited or tripped else SHORT_SECONDS)

    def _share_out(self, now: float) -> None:
        """Give each name its share of a second's allowance, by what came since the last time."""
        passed, self._shared_out = now - self._shared_out, now
        reserved, self._reserved = self._reserved, 0
        ordinary = sum(entry.count for entry in self._names.values())
        if passed <= 0:
            # A clock that went back: what came is counted, and nothing follows from it.
            for entry in self._names.values():
                entry.count = 0
            return
        # What the bucket holds above the middle is there to be spent, over five seconds.
        middle = (self._total.capacity + self._floor) / 2
        room = self._budget - reserved / passed + max(0.0, self._total.fill(now) - middle) / 5
        if ordinary <= passed * room and not self.limited and len(self._names) < NAMES:
            for entry in self._names.values():
                entry.count = 0
            return
        for name, entry in list(self._names.items()):
            # Up at once, down slowly: what came a second ago may come again.
            entry.rate = max(entry.count / passed, entry.rate * 0.5**passed)
            entry.count = 0
            if entry.rate < _FORGOTTEN_RATE:
                del self._names[name]
        kept = fair_probabilities({name: entry.rate for name, entry in self._names.items()}, room)
        self.limited = False
        for name, entry in self._names.items():
            entry.threshold = threshold_of(kept[name])
            self.limited = self.limited or entry.threshold > 0
        if self.limited:
            self._due = min(self._due, now + _TICK_SECONDS)
