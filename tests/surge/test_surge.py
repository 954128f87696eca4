"""More is wanted than there is: who is served, who is shed, and that nobody waits without end.

On the real Envoy, in front of a service that can do so much a second. Each test prints its figures.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.runtime.traffic.support import Gateway
from tests.surge.offered import OBJECTIVE_MS, SECONDS, offered, tenant, three_times_the_capacity

MakeGateway = Callable[..., Gateway]


async def test_a_tenants_surge_is_its_own(make_gateway: MakeGateway) -> None:
    tenants = [
        tenant("acme", "gold", 16),
        tenant("globex", "silver", 5),
        tenant("hooli", "silver", 10),
        tenant("initech", "bronze", 8),
    ]
    usual = {"acme": 8.0, "hooli": 4.0, "initech": 2.0}
    outcome = await offered(make_gateway, tenants, {**usual, "globex": 20 * 5.0})
    print(outcome)
    results = outcome.results
    for name in usual:
        assert results[name].statuses[429] == 0, name
        assert results[name].served == 1, name
        assert results[name].percentile(99) <= OBJECTIVE_MS / 1000, name
    # Its own limit is what it gets, and each refusal says when to come back.
    assert results["globex"].statuses[200] <= 5 * (SECONDS + 2)
    assert len(results["globex"].hints) == results["globex"].statuses[429]


async def test_at_three_times_the_capacity_gold_is_served_and_bronze_is_shed(
    make_gateway: MakeGateway,
) -> None:
    outcome = await offered(make_gateway, *three_times_the_capacity())
    print(outcome)
    results = outcome.results
    for name in ("acme", "umbrella"):
        assert results[name].served >= 0.99, name
        assert results[name].percentile(99) <= OBJECTIVE_MS / 1000, name
    silver = [results[name].served for name in ("globex", "hooli")]
    bronze = [results[name].served for name in ("initech", "soylent")]
    assert min(silver) > max(bronze)
    assert outcome.goodput >= 0.95
    # What waits is bounded by what the latency allows, not by what is asked for.
    assert outcome.longest_queue < outcome.capacity * OBJECTIVE_MS / 1000


async def test_a_neighbour_of_the_same_tier_keeps_its_share(make_gateway: MakeGateway) -> None:
    # One of three silver tenants is allowed far more than the stage has, and asks for it.
    tenants = [
        tenant("globex", "silver", 200),
        tenant("hooli", "silver", 14),
        tenant("vandelay", "silver", 14),
    ]
    rates = {"globex": 100.0, "hooli": 7.0, "vandelay": 7.0}
    outcome = await offered(make_gateway, tenants, rates)
    print(outcome)
    results = outcome.results
    for name in ("hooli", "vandelay"):
        assert results[name].served >= 0.99, name
    assert results["globex"].served < 0.5
