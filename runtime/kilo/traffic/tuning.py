"""Timeouts from what was measured: what a tier's would be, for a person to review.

Nothing here changes anything. A tier's timeout is three times the 99th percentile of the slowest of its
tenants that had enough requests, so that a slow answer is waited for and a hanging one isn't; rounded up,
and within the tier's bounds: not below what its objective calls slow, not above half as much again as it is
now or half of it, since a step that is too large shows too late that it was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from kilo.tenancy import TierName, TierPolicy

LEAST_REQUESTS = 1_000
"""Of a tenant in the time that is looked at; the 99th percentile of fewer is of ten answers or less."""
_TIMES_P99 = 3
_STEP_MS = 50
_LARGEST_STEP = 1.5


@dataclass(frozen=True, slots=True)
class Latency:
    """What one tenant's requests took."""

    tenant: str
    tier: TierName
    requests: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tier's timeout as it is and as it would be, and why."""

    tier: TierName
    timeout_ms: int
    proposed_ms: int
    reason: str

    @property
    def changes(self) -> bool:
        """Whether there is anything to review."""
        return self.proposed_ms != self.timeout_ms


def propose(tiers: Mapping[TierName, TierPolicy], measured: Sequence[Latency]) -> list[Proposal]:
    """Propose a timeout for each tier; one that nothing was measured for keeps its own."""
    return [_of_tier(name, policy, measured) for name, policy in tiers.items()]


def _of_tier(name: TierName, policy: TierPolicy, measured: Sequence[Latency]) -> Proposal:
    now = policy.timeout_ms
    enough = [
        each
        for each in measured
        if each.tier == name and each.requests >= LEAST_REQUESTS and isfinite(each.p99_ms)
    ]
    if not enough:
        return Proposal(name, now, now, f"no tenant had {LEAST_REQUESTS:,} requests: kept")
    slowest = max(enough, key=lambda each: each.p99_ms)
    wanted = ceil(_TIMES_P99 * slowest.p99_ms / _STEP_MS) * _STEP_MS
    lowest = max(policy.objective.latency_threshold_ms, ceil(now / _LARGEST_STEP))
    highest = max(lowest, int(now * _LARGEST_STEP))
    proposed = min(max(wanted, lowest), highest)
    reason = f"{_TIMES_P99} times {slowest.tenant}'s p99 of {slowest.p99_ms:.0f} ms is {wanted} ms"
    if proposed != wanted:
        reason += f", the tier's bounds are {lowest} to {highest} ms"
    return Proposal(name, now, proposed, reason)
