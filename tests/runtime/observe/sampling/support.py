"""A tenant's spans against a guard, in simulated time."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from kilo.observe.sampling.guard import Guard
from kilo.observe.sampling.probability import probability_of


class Simulation:
    """A guard whose clock the test moves."""

    def __init__(
        self, budgets: Mapping[str, float], allowed: tuple[str, ...] = (), share: float = 1.0
    ) -> None:
        self.now = 1000.0
        self.random = random.Random(7)
        self.guard = Guard(budgets, allowed, share, clock=lambda: self.now)
        self.sent: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.estimated: dict[str, float] = defaultdict(float)
        self.kept_by_second: Counter[tuple[str, int]] = Counter()

    def span(
        self,
        tenant: str,
        name: str = "work",
        attributes: Mapping[str, object] | None = None,
        *,
        failed: bool = False,
        randomness: int | None = None,
    ) -> bool:
        """Offer one span now; whether it is kept."""
        allowance = self.guard.allowance(tenant)
        threshold = self.guard.threshold(allowance, name)
        drawn = self.random.getrandbits(56) if randomness is None else randomness
        why = self.guard.offer(allowance, name, attributes or {}, drawn >= threshold, failed)
        self.sent[name] += 1
        if why is None:
            return False
        self.kept[name] += 1
        self.kept_by_second[tenant, int(self.now)] += 1
        self.estimated[name] += 1 / probability_of(threshold) if why == "share" else 1
        return True

    def seconds(self, count: int, rate: float, send: Callable[[int], object]) -> None:
        """Call ``send`` at ``rate`` a second, evenly, for ``count`` seconds."""
        begun = self.now
        number = round(count * rate)
        for place in range(number):
            self.now = begun + place / rate
            send(place)
        self.now = begun + count

    def most_in(self, tenant: str, seconds: int) -> int:
        """The most spans of a tenant that were kept in any so many seconds."""
        kept = {at: n for (of, at), n in self.kept_by_second.items() if of == tenant}
        first, last = min(kept), max(kept)
        each = [kept.get(at, 0) for at in range(first, last + 1)]
        return max(sum(each[at : at + seconds]) for at in range(max(1, len(each) - seconds + 1)))
