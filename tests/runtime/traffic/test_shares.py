"""Who gets what when everybody wants more: as arithmetic, whatever the tenants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilo.tenancy import RateLimit, Tenant
from kilo.traffic.shares import LEAST, TIERS, fair_shares
from tests.runtime.traffic.support import make_tenant


def tenant(name: str, tier: str, rate: int) -> Tenant:
    return make_tenant(name, tier=tier, limit=RateLimit(requests_per_second=rate, burst=rate))


def test_gold_is_whole_and_what_it_leaves_is_shared_in_order() -> None:
    tenants = [
        tenant("acme", "gold", 60),
        tenant("globex", "silver", 1_000),
        tenant("hooli", "silver", 10),
        tenant("vandelay", "silver", 50),
        tenant("initech", "bronze", 5),
    ]
    assert fair_shares(tenants, 125) == {
        "acme": 60,
        "hooli": 10,
        "globex": 15,
        "vandelay": 15,
        "initech": LEAST,
    }
    assert fair_shares(tenants, 10_000) == {each.id: each.limit.requests_per_second for each in tenants}


@given(
    st.lists(st.tuples(st.sampled_from(TIERS), st.integers(1, 100_000)), min_size=1, max_size=30),
    st.integers(1, 1_000_000),
)
def test_shares_fit_the_capacity_and_no_neighbour_has_more_who_asks_for_no_less(
    given_tenants: list[tuple[str, int]], capacity: int
) -> None:
    tenants = [tenant(f"t{n}", tier, rate) for n, (tier, rate) in enumerate(given_tenants)]
    shares = fair_shares(tenants, capacity)
    assert sum(shares.values()) <= capacity + LEAST * len(tenants) + 1e-6 * capacity
    for each in tenants:
        assert shares[each.id] <= each.limit.requests_per_second
        if shares[each.id] < each.limit.requests_per_second - 1e-9:
            # It is short, so nobody of its tier has more, and tiers below have nothing.
            for other in tenants:
                if other.tier == each.tier:
                    assert shares[other.id] <= shares[each.id] + 1e-6
                elif TIERS.index(other.tier) > TIERS.index(each.tier):
                    assert shares[other.id] == pytest.approx(LEAST, abs=1e-6)
