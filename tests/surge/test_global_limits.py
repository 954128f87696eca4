"""A tenant's limit that three gateways keep together, and what is left of it when the service is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from kilo.tenancy import RateLimit
from kilo.traffic.settings import Upstream
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant
from tests.surge.fleet import EVEN, UNEVEN, Entrance, Fleet
from tests.surge.load import running
from tests.surge.rate_limits import RateLimits, rate_limits

MakeGateway = Callable[..., Gateway]
RATE = 60
LIMIT = RateLimit(requests_per_second=RATE, burst=RATE)


async def fleet_of(make_gateway: MakeGateway, port: int, service: RateLimits, **settings: bool) -> Fleet:
    """Three gateways before one service."""
    gateways = [
        make_gateway(
            replicas=3,
            stable=Upstream(host=ADDRESS, port=port),
            next=None,
            rate_limit_service=Upstream(host=ADDRESS, port=service.port),
            # What a busy machine sheds is another matter.
            shedding_enabled=False,
            **settings,
        )
        for _ in range(3)
    ]
    tenants = [make_tenant("acme", limit=LIMIT), make_tenant("globex")]
    for gateway in gateways:
        await asyncio.to_thread(gateway.start, tenants)
    entrances = [Entrance(ADDRESS, each.settings.listener_port, each.operations) for each in gateways]
    return Fleet(entrances, "acme", LIMIT)


@pytest.mark.parametrize("parts", [EVEN, UNEVEN])
async def test_all_of_the_limit_is_served_however_the_load_lies_and_no_more(
    make_gateway: MakeGateway, tmp_path: Path, parts: Sequence[float]
) -> None:
    with running(workers=64, seconds=0.001) as upstream, rate_limits(tmp_path / "limits") as service:
        fleet = await fleet_of(make_gateway, upstream.port, service)
        await fleet.counted_again()
        asked = await fleet.offer(RATE * 0.9, parts)
        assert asked.passed >= asked.counted * 0.95 - asked.uncounted
        surge = await fleet.offer(RATE * 5, parts)
        assert surge.counted * 0.9 - surge.uncounted <= surge.passed <= surge.most
        if parts == UNEVEN:
            # Of the split, 80 % of the load at one gateway would have got a third of the limit.
            assert asked.passed > asked.most_split or asked.uncounted > asked.counted / 2
        assert {limit for result in surge.results for limit in result.limits} == {"tenant"}
        assert {int(hint) for result in surge.results for hint in result.hints} <= {1, 2, 3}


@pytest.mark.parametrize("misdeed", ["killed", "frozen"])
async def test_without_the_service_the_split_holds_and_with_it_the_whole_again(
    make_gateway: MakeGateway, tmp_path: Path, misdeed: str
) -> None:
    with running(workers=64, seconds=0.001) as upstream, rate_limits(tmp_path / "limits") as service:
        fleet = await fleet_of(make_gateway, upstream.port, service)
        await fleet.counted_again()
        if misdeed == "killed":
            service.stop()
        else:
            service.freeze()
        # Empties the buckets, which nobody has used until now.
        await fleet.offer(RATE * 3, EVEN, 3)
        away = await fleet.offer(RATE * 3, EVEN)
        # Neither open nor closed.
        assert away.uncounted == sum(result.asked for result in away.results)
        assert away.split * 0.9 <= away.passed <= away.most
        assert away.lost == 0
        uneven = await fleet.offer(RATE, UNEVEN)
        assert uneven.split * 0.9 <= uneven.passed <= uneven.most
        service.stop()
        service.start()
        await fleet.counted_again()
        back = await fleet.offer(RATE * 0.9, UNEVEN)
        assert back.passed >= back.counted * 0.95 - back.uncounted


async def test_a_service_that_counts_nothing_lets_no_gateway_exceed_the_whole_limit(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    with (
        running(workers=64, seconds=0.001) as upstream,
        rate_limits(tmp_path / "limits", domain="another") as service,
    ):
        fleet = await fleet_of(make_gateway, upstream.port, service)
        await fleet.counted_again()
        surge = await fleet.offer(RATE * 5, (1.0, 0.0001, 0.0001))
        (busy, *_) = surge.results
        most = LIMIT.burst + RATE * (surge.until - min(busy.sent))
        assert busy.asked - busy.statuses[429] <= most + min(surge.uncounted, surge.most_split)
        assert busy.statuses[429]


async def test_limits_that_are_not_enforced_are_counted_and_refuse_nobody(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    with running(workers=64, seconds=0.001) as upstream, rate_limits(tmp_path / "limits") as service:
        fleet = await fleet_of(make_gateway, upstream.port, service, limits_enforced=False)
        await fleet.counted_again()
        surge = await fleet.offer(RATE * 5, EVEN, 3)
        assert surge.passed == sum(result.asked for result in surge.results)


def test_the_service_says_how_it_fares_without_naming_tenants(tmp_path: Path) -> None:
    with rate_limits(tmp_path / "limits") as service:
        text = httpx.get(service.metrics_url).text
    assert "ratelimit_service_config_load_success" in text or "go_goroutines" in text
    assert "tenant" not in text
