"""Several gateways that keep one tenant's limit, what was asked of each, and what each limit allows of that.

A busy machine sends in bursts and answers late. So nothing here is compared with what was meant to be sent:
what a limit allows is worked out from when each request was sent, and what a service did not count is read
from the gateways.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import httpx

from kilo.tenancy import RateLimit
from tests.surge.load import Clients, Result

EVEN, UNEVEN = (1 / 3, 1 / 3, 1 / 3), (0.8, 0.15, 0.05)


@dataclass(frozen=True)
class Entrance:
    """Where one gateway is."""

    address: str
    port: int
    operations: str


@dataclass(frozen=True)
class Offered:
    """What was asked of each gateway in a while, and what became of it."""

    results: Sequence[Result]
    until: float
    """The last answer, in seconds since the epoch."""
    uncounted: int
    """Requests for which no rate limit service answered in time: each gateway's part decided."""
    limit: RateLimit

    @property
    def passed(self) -> int:
        """Requests that no limit refused."""
        return sum(result.asked - result.statuses[429] - result.lost for result in self.results)

    @property
    def lost(self) -> int:
        """Requests without an answer, and those that were told of an error at the gateway's back."""
        return sum(
            result.lost + sum(result.statuses[status] for status in (500, 502, 503, 504))
            for result in self.results
        )

    @property
    def answered(self) -> int:
        """Requests that a rate limit service decided."""
        return sum(result.asked for result in self.results) - self.uncounted

    @property
    def most(self) -> int:
        """No more than this passes, however late requests and answers are.

        The service counts whole seconds, and each gateway's bucket the requests that it does not answer.
        """
        sent = [moment for result in self.results for moment in result.sent]
        seconds = int(self.until) - int(min(sent)) + 1
        by_service = min(self.answered, self.limit.requests_per_second * seconds)
        return by_service + min(self.uncounted, self.most_split)

    @property
    def counted(self) -> int:
        """What passes a service that counts each whole second, if each arrives when it was sent."""
        seconds = Counter(int(moment) for result in self.results for moment in result.sent)
        return sum(min(asked, self.limit.requests_per_second) for asked in seconds.values())

    @property
    def most_split(self) -> int:
        """No more than this passes the split, however late requests arrive."""
        rate, burst = self._part()
        return sum(
            min(len(result.sent), ceil(burst + rate * (self.until - min(result.sent))))
            for result in self.results
            if result.sent
        )

    @property
    def split(self) -> int:
        """What passes the split, each bucket empty to begin with, if each arrives when it was sent."""
        rate, burst = self._part()
        passed = 0
        for result in self.results:
            tokens, last = 0.0, min(result.sent, default=0.0)
            for moment in sorted(result.sent):
                tokens, last = min(burst, tokens + (moment - last) * rate), moment
                if tokens >= 1:
                    tokens -= 1
                    passed += 1
        return passed

    def _part(self) -> tuple[float, int]:
        """Each gateway's: requests a second, and the most at once."""
        replicas = len(self.results)
        return self.limit.requests_per_second / replicas, ceil(self.limit.burst / replicas)

    def __str__(self) -> str:
        whole: Counter[int] = sum((result.statuses for result in self.results), Counter())
        return (
            f"{dict(whole)}, {self.lost} lost, {self.uncounted} uncounted; {self.passed} passed of at most "
            f"{self.most}; counted {self.counted}, split {self.split} (at most {self.most_split})"
        )


class Fleet:
    """Gateways, and one tenant's clients at each."""

    def __init__(self, entrances: Sequence[Entrance], tenant: str, limit: RateLimit) -> None:
        self._entrances = entrances
        self._tenant = tenant
        self.limit = limit
        self.sent = 0
        """Requests of the offer that is under way, or was the last."""
        self._clients = [Clients(entrance.port, entrance.address) for entrance in entrances]

    async def offer(self, rate: float, parts: Sequence[float], seconds: float = 10.0) -> Offered:
        """Send ``rate`` requests a second for ``seconds``, to each gateway its part."""
        # A gateway closes connections that nobody used for a minute.
        self.close()
        results = [Result() for _ in parts]
        before = await asyncio.to_thread(self._uncounted)
        counting = asyncio.create_task(self._count_sent(results))
        await asyncio.gather(
            *(
                each.offer(self._tenant, rate * part, seconds, result)
                for each, part, result in zip(self._clients, parts, results, strict=True)
            )
        )
        counting.cancel()
        until = time.time()
        uncounted = await asyncio.to_thread(self._uncounted) - before
        offered = Offered(results, until, uncounted, self.limit)
        print(f"{rate:.0f}/s as {'/'.join(f'{part:.0%}' for part in parts)}: {offered}")
        return offered

    async def counted_again(self) -> None:
        """Wait until every gateway's requests are counted by the service."""
        deadline = time.monotonic() + 120
        for clients, entrance in zip(self._clients, self._entrances, strict=True):
            before = await asyncio.to_thread(_count, entrance, "ok")
            while await asyncio.to_thread(_count, entrance, "ok") == before:
                assert time.monotonic() < deadline, f"{entrance} asks no service"
                await clients.ask({"x-tenant-id": self._tenant}, Result())
                await asyncio.sleep(0.2)

    async def told(self, requests_per_second: int) -> None:
        """Wait until every gateway says that this is the limit."""
        deadline = time.monotonic() + 120
        for entrance in self._entrances:
            while f"q={requests_per_second};" not in await asyncio.to_thread(_policy, entrance, self._tenant):
                assert time.monotonic() < deadline, f"{entrance} has another limit"
                await asyncio.sleep(0.2)

    def close(self) -> None:
        """Close all connections."""
        for clients in self._clients:
            clients.close()

    async def _count_sent(self, results: Sequence[Result]) -> None:
        while True:
            self.sent = sum(len(result.sent) for result in results)
            await asyncio.sleep(0.05)

    def _uncounted(self) -> int:
        return sum(_count(entrance, "failure_mode_allowed") for entrance in self._entrances)


def _count(entrance: Entrance, outcome: str) -> int:
    """What a gateway says of its requests to the service."""
    text = httpx.get(f"{entrance.operations}/metrics", timeout=30).text
    found = re.findall(rf"^envoy_cluster_ratelimit_{outcome}\{{[^}}]*\}} (\d+)", text, re.MULTILINE)
    return sum(map(int, found))


def _policy(entrance: Entrance, tenant: str) -> str:
    url = f"http://{entrance.address}:{entrance.port}/v1/events"
    return httpx.post(url, headers={"x-tenant-id": tenant}, timeout=30).headers.get("ratelimit-policy", "")
