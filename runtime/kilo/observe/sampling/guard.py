"""The guard of a process: every tenant's allowance, bounded, and closed where it can't decide.

What it holds is bounded by :data:`TENANTS`, whatever comes: a tenant beyond them, or one that nobody knows,
shares the allowance of :data:`UNKNOWN`. A process starts with full buckets and no memory: after a restart it
may keep one burst more (three seconds of its allowance). Several copies divide the allowance: ``share`` is
this copy's part, which the program gives each by its number of replicas, so that together they keep no more
than one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from kilo.observe.sampling.allowance import Allowance, Kept, State

TENANTS = 10_000
"""Tenants with an allowance of their own in one process."""
UNKNOWN = "unknown"
"""Whose allowance spans without a tenant of the stage share."""
UNKNOWN_SPANS_PER_SECOND = 10.0


class Guard:
    """Decides which spans of which tenant are kept. Safe for several threads.

    Args:
        spans_per_second: the allowance by tenant.
        allowed: names of key spans, which are kept before all others.
        share: this copy's part of every allowance, above 0 and at most 1.
        clock: seconds that do not go back.
    """

    def __init__(
        self,
        spans_per_second: Mapping[str, float],
        allowed: Iterable[str] = (),
        share: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._budgets, self._share, self._clock = spans_per_second, share, clock
        self.allowed = frozenset(allowed)
        self.tenants: dict[str, Allowance] = {}
        """Allowances that were asked for; :meth:`allowance` makes those that are not here."""
        self.lock = threading.Lock()
        """Held around every call to an allowance."""
        self.failures = 0
        """Spans dropped because deciding about them failed."""

    def allowance(self, tenant: str) -> Allowance:
        """The allowance that spans of ``tenant`` take from."""
        found = self.tenants.get(tenant)
        if found is not None:
            return found
        with self.lock:
            budget = self._budgets.get(tenant)
            if budget is None or len(self.tenants) >= TENANTS:
                tenant, budget = UNKNOWN, UNKNOWN_SPANS_PER_SECOND
            if (found := self.tenants.get(tenant)) is None:
                found = self.tenants[tenant] = Allowance(budget * self._share, self._clock())
            return found

    def threshold(self, allowance: Allowance, name: str) -> int:
        """What a trace's randomness must reach for its spans of ``name`` to be kept; 0 for the allow list."""
        if not allowance.limited:
            return 0
        with self.lock:
            now = self._clock()
            if name in self.allowed and allowance.allows(now):
                return 0
            return allowance.threshold(name, now)

    def offer(
        self,
        allowance: Allowance,
        name: str,
        attributes: Mapping[str, Any] | None,
        sampled: bool,
        failed: bool = False,
    ) -> Kept | None:
        """Decide about a span that has ended; none when it is dropped, and counted.

        Args:
            allowance: what it takes from.
            name: the span's.
            attributes: the span's; values are looked at and kept nowhere.
            sampled: whether its trace's randomness passes the threshold it began under.
            failed: whether its trace failed or was slow.
        """
        with self.lock:
            return allowance.offer(
                name, attributes, self._clock(), sampled=sampled, failed=failed, allowed=name in self.allowed
            )

    def fail(self) -> None:
        """Count a span that is dropped because deciding about it failed."""
        self.failures += 1

    def states(self) -> dict[str, State]:
        """What is done now, by tenant."""
        now = self._clock()
        with self.lock:
            return {tenant: allowance.state(now) for tenant, allowance in self.tenants.items()}
