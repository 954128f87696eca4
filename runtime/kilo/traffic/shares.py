"""Fair shares: what each tenant is served when everybody wants more than the stage has.

The tiers are served in their order, each from what those above it leave, and within a tier a tenant gets
what its neighbours get unless it asks for less (max-min fairness, Bertsekas and Gallager, Data Networks,
section 6.5.2). So nobody's share hangs on what others send: a surge is above its sender's own share, and
that is what goes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kilo.tenancy import Tenant, TierName

TIERS: tuple[TierName, ...] = ("gold", "silver", "bronze")
SURE = 0.8
"""Of the capacity, what silver and bronze may be sure of together with gold. Were all of it promised, a
request above a share would make everybody wait, without end."""
LEAST = 1 / 60
"""Requests a second that are within everybody's share, since an empty bucket can't be."""


def fair_shares(tenants: Sequence[Tenant], capacity_requests_per_second: float) -> Mapping[str, float]:
    """Requests a second of each tenant, by id: at most its limit, and together at most the capacity."""
    shares: dict[str, float] = {}
    left = capacity_requests_per_second
    for tier in TIERS:
        if tier != "gold":
            left = min(left, max(0.0, SURE * capacity_requests_per_second - sum(shares.values())))
        # Who asks for least is served first, and what it leaves is the others'.
        members = sorted(
            (tenant for tenant in tenants if tenant.tier == tier),
            key=lambda tenant: tenant.limit.requests_per_second,
        )
        for number, tenant in enumerate(members):
            share = min(float(tenant.limit.requests_per_second), left / (len(members) - number))
            shares[tenant.id] = max(share, LEAST)
            left -= share
    return shares
