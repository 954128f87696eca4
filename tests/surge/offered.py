"""What each tenant gets of a service when so much is asked for, through a real gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kilo.tenancy import Objective, RateLimit, Tenant
from kilo.traffic.settings import Upstream
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant
from tests.surge.load import Clients, Result, running

MakeGateway = Callable[..., Gateway]
OBJECTIVE_MS = 1_000
SECONDS = 12.0
SETTLE_SECONDS = 3.0


def tenant(name: str, tier: str, rate: int) -> Tenant:
    return make_tenant(
        name,
        tier=tier,
        limit=RateLimit(requests_per_second=rate, burst=2 * rate),
        objective=Objective(availability_percent=99.9, latency_threshold_ms=OBJECTIVE_MS, latency_percent=99),
    )


@dataclass
class Outcome:
    """What became of what was asked for."""

    results: dict[str, Result]
    longest_queue: int
    capacity: float
    """Requests a second that the service did, or could where it had too little to do."""
    seconds: float
    """From the first request to the last answer."""

    @property
    def goodput(self) -> float:
        """Answers within the objective, as a share of the capacity."""
        good = sum(result.within(OBJECTIVE_MS / 1000) for result in self.results.values())
        return good / self.seconds / self.capacity

    def __str__(self) -> str:
        lines = [
            f"{name:10} asked {result.asked:5} served {result.served:6.1%} 429 by {dict(result.limits)} "
            f"p99 {1000 * result.percentile(99):5.0f} ms lost {result.lost}"
            for name, result in self.results.items()
        ]
        return "\n".join(
            [
                *lines,
                f"goodput {self.goodput:.1%} of {self.capacity:.0f}/s, longest queue {self.longest_queue}",
            ]
        )


async def offered(
    make_gateway: MakeGateway, tenants: list[Tenant], rates: Mapping[str, float], **settings: Any
) -> Outcome:
    """Offer ``rates`` (requests a second, by tenant) to a service that can do 40 a second."""
    with running(workers=4, seconds=0.1) as service:
        gateway = make_gateway(
            stable=Upstream(host=ADDRESS, port=service.port),
            next=None,
            # As an operator says it, who keeps something in hand.
            capacity_requests_per_second=round(0.9 * service.capacity),
            min_concurrent_requests=2,
            **settings,
        )
        await asyncio.to_thread(gateway.start, tenants)
        clients = Clients(gateway.settings.listener_port)
        # What a surge finds is not what it leaves: the limits need a moment to find their place.
        settling = (clients.offer(name, rate, SETTLE_SECONDS, Result()) for name, rate in rates.items())
        await asyncio.gather(*settling)
        await asyncio.to_thread(service.counts)
        results = {name: Result() for name in rates}
        begun = time.monotonic()
        await asyncio.gather(
            *(clients.offer(name, rate, SECONDS, results[name]) for name, rate in rates.items())
        )
        took = time.monotonic() - begun
        served, queue = await asyncio.to_thread(service.counts)
        clients.close()
        # A busy machine lets the service do less than it could.
        return Outcome(results, queue, min(service.capacity, served / took), took)


def three_times_the_capacity() -> tuple[list[Tenant], dict[str, float]]:
    """Gold is promised half of what the service can do, everybody together three times as much."""
    tenants = [
        tenant("acme", "gold", 14),
        tenant("umbrella", "gold", 14),
        tenant("globex", "silver", 20),
        tenant("hooli", "silver", 20),
        tenant("initech", "bronze", 40),
        tenant("soylent", "bronze", 60),
    ]
    return tenants, {each.id: 0.72 * each.limit.requests_per_second for each in tenants}
