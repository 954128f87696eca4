"""What the equal split of a tenant's limit over gateways costs, when its load is not split equally."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from kilo.tenancy import RateLimit
from kilo.traffic.settings import Upstream
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant
from tests.surge.load import Clients, Result, running

MakeGateway = Callable[..., Gateway]
RATE, SECONDS = 60, 10.0


@pytest.mark.parametrize(
    ("parts", "served"), [((1 / 3, 1 / 3, 1 / 3), 0.97), ((0.6, 0.3, 0.1), 0.70), ((0.8, 0.15, 0.05), 0.5)]
)
async def test_a_split_limit_serves_less_than_the_whole_under_uneven_load(
    make_gateway: MakeGateway, parts: Sequence[float], served: float
) -> None:
    """All of the limit is asked for, and no more."""
    with running(workers=64, seconds=0.001) as service:
        tenant = make_tenant("acme", limit=RateLimit(requests_per_second=RATE, burst=RATE))
        results = [Result() for _ in parts]
        clients: list[Clients] = []
        for _ in parts:
            upstream = Upstream(host=ADDRESS, port=service.port)
            gateway = make_gateway(replicas=len(parts), stable=upstream, next=None)
            await asyncio.to_thread(gateway.start, [tenant])
            clients.append(Clients(gateway.settings.listener_port))
        # Without what the buckets held to begin with.
        await asyncio.gather(
            *(
                each.offer("acme", RATE * part * 3, 2, Result())
                for each, part in zip(clients, parts, strict=True)
            )
        )
        await asyncio.gather(
            *(
                each.offer("acme", RATE * part, SECONDS, result)
                for each, part, result in zip(clients, parts, results, strict=True)
            )
        )
        for each in clients:
            each.close()
        share = sum(result.statuses[200] for result in results) / sum(result.asked for result in results)
        print(f"load {', '.join(f'{part:.0%}' for part in parts)}: {share:.1%} of the limit served")
        assert share >= served - 0.1
        # Never more than the whole, however the load is split.
        assert sum(result.statuses[200] for result in results) <= RATE * (SECONDS + 1)
