"""A surge is refused for whom it is, and what should not have been is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from kilo.tenancy import RateLimit
from kilo.tour.surge import Surged, choose, surge, surge_document, surge_problems, surge_table
from tests.runtime.traffic.conftest import make_gateway, stable, trial
from tests.runtime.traffic.support import Gateway, make_tenant

__all__ = ["make_gateway", "stable", "trial"]


def test_a_surge_is_refused_with_hints_and_the_others_are_served(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway()
    gateway.start(
        [make_tenant("acme"), make_tenant("initech", limit=RateLimit(requests_per_second=5, burst=5))]
    )
    assert choose({"acme": "gold", "globex": "silver", "initech": "bronze"}) == "initech"
    results = asyncio.run(surge(gateway.url, "x-tenant-id", ["acme", "initech"], "initech"))
    assert results["initech"].statuses[429] > 0
    assert set(results["acme"].statuses) == {200}
    assert surge_problems(results, "initech") == []
    assert surge_table(results, "initech").row_count == 2
    assert surge_document(results)["acme"]


def test_what_should_not_have_been_is_said() -> None:
    results = {
        "acme": Surged(Counter({200: 3, 429: 2}), [0.1], [1, 1]),
        "globex": Surged(Counter({200: 3, 0: 1, 503: 1}), [0.1]),
        "initech": Surged(Counter({429: 1}), [], [0]),
    }
    assert surge_problems(results, "initech") == [
        "during initech's surge 2 requests of acme were refused",
        "2 requests of globex failed",
        "refusals did not say when to come back",
    ]
