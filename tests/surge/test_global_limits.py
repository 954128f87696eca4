"""A tenant's limit that three gateways keep together, and what is left of it when the service is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kilo.tenancy import RateLimit
from kilo.traffic.settings import Upstream
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant
from tests.surge.load import Clients, Result, running
from tests.surge.rate_limits import RateLimits, rate_limits

MakeGateway = Callable[..., Gateway]
RATE, SECONDS = 60, 10.0
EVEN, UNEVEN = (1 / 3, 1 / 3, 1 / 3), (0.8, 0.15, 0.05)


class Fleet:
    """Three gateways before one service."""

    def __init__(self, make_gateway: MakeGateway, port: int, service: RateLimits) -> None:
        upstream = Upstream(host=ADDRESS, port=port)
        self.gateways = [
            make_gateway(
                replicas=3,
                stable=upstream,
                next=None,
                rate_limit_service=Upstream(host=ADDRESS, port=service.port),
            )
            for _ in range(3)
        ]
        self.clients = [Clients(gateway.settings.listener_port) for gateway in self.gateways]

    async def start(self) -> None:
        limit = RateLimit(requests_per_second=RATE, burst=RATE)
        for gateway in self.gateways:
            await asyncio.to_thread(gateway.start, [make_tenant("acme", limit=limit), make_tenant("globex")])

    async def offer(self, rate: float, parts: Sequence[float], seconds: float = SECONDS) -> Result:
        results = [Result() for _ in parts]
        await asyncio.gather(
            *(
                each.offer("acme", rate * part, seconds, result)
                for each, part, result in zip(self.clients, parts, results, strict=True)
            )
        )
        whole = Result()
        for result in results:
            whole.statuses += result.statuses
            whole.limits += result.limits
            whole.hints += result.hints
            whole.lost += result.lost
        print(f"{rate:.0f}/s as {parts}: {dict(whole.statuses)}, {whole.lost} lost")
        return whole


@pytest.mark.parametrize("parts", [EVEN, UNEVEN])
async def test_all_of_the_limit_is_served_however_the_load_lies_and_no_more(
    make_gateway: MakeGateway, tmp_path: Path, parts: Sequence[float]
) -> None:
    with running(workers=64, seconds=0.001) as upstream, rate_limits(tmp_path / "limits") as service:
        fleet = Fleet(make_gateway, upstream.port, service)
        await fleet.start()
        asked = await fleet.offer(RATE * 0.9, parts)
        # Of the split, 80 % of the load at one gateway would have got a third of the limit.
        assert asked.served >= 0.9
        surge = await fleet.offer(RATE * 5, parts)
        # Whole seconds count, and the first and the last are begun.
        assert RATE * SECONDS * 0.8 <= surge.statuses[200] <= RATE * (SECONDS + 2)
        assert set(surge.limits) == {"tenant"}
        assert {int(hint) for hint in surge.hints} <= {1, 2, 3}


@pytest.mark.parametrize("misdeed", ["killed", "frozen"])
async def test_without_the_service_the_split_holds_and_with_it_the_whole_again(
    make_gateway: MakeGateway, tmp_path: Path, misdeed: str
) -> None:
    with running(workers=64, seconds=0.001) as upstream, rate_limits(tmp_path / "limits") as service:
        fleet = Fleet(make_gateway, upstream.port, service)
        await fleet.start()
        if misdeed == "killed":
            service.stop()
        else:
            service.freeze()
        # Empties the buckets, which nobody has used until now.
        await fleet.offer(RATE * 3, EVEN, 3)
        away = await fleet.offer(RATE * 3, EVEN)
        # Neither open nor closed.
        assert RATE * SECONDS * 0.8 <= away.statuses[200] <= RATE * (SECONDS + 2)
        assert (away.lost, away.statuses[500], away.statuses[503]) == (0, 0, 0)
        uneven = await fleet.offer(RATE, UNEVEN)
        assert uneven.served < 0.8
        service.stop()
        service.start()
        # A service that was away is asked again after ten seconds at most.
        await asyncio.sleep(12)
        back = await fleet.offer(RATE * 0.9, UNEVEN)
        assert back.served >= 0.9


async def test_a_service_that_counts_nothing_lets_no_gateway_exceed_the_whole_limit(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    with (
        running(workers=64, seconds=0.001) as upstream,
        rate_limits(tmp_path / "limits", domain="another") as service,
    ):
        fleet = Fleet(make_gateway, upstream.port, service)
        await fleet.start()
        surge = await fleet.offer(RATE * 5, (1.0, 0.0001, 0.0001))
        assert surge.statuses[200] <= RATE * (SECONDS + 2)
        assert surge.statuses[429]
