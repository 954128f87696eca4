"""A thousand clients that a real gateway refuses at once come back spread, and all are served in the end."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from types import SimpleNamespace

import httpx
import pytest

from kilo.client import RetryPolicy, transport
from kilo.tenancy import RateLimit
from kilo.traffic.settings import Upstream
from tests.patience import eventually
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant
from tests.surge.load import running

MakeGateway = Callable[..., Gateway]
CLIENTS = 1_000
PATIENT = RetryPolicy(seconds=120, attempts=20)


class Noted(httpx.AsyncBaseTransport):
    """One client's refusals: what each asks for."""

    def __init__(self) -> None:
        self._transport = httpx.AsyncHTTPTransport(verify=False)
        self.asked: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._transport.handle_async_request(request)
        if answer.status_code == 429:
            self.asked.append(int(answer.headers["retry-after"]))
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


async def test_a_thousand_that_are_refused_at_once_come_back_spread_and_are_served(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: defaultdict[str, list[float]] = defaultdict(list[float])

    async def sleep(seconds: float) -> None:
        # What a client chooses: when it wakes is the machine's affair, too.
        task = asyncio.current_task()
        assert task is not None
        chosen[task.get_name()].append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(transport, "asyncio", SimpleNamespace(sleep=sleep))
    with running(workers=64, seconds=0.001) as upstream:
        gateway = make_gateway(stable=Upstream(host=ADDRESS, port=upstream.port), next=None)
        limit = RateLimit(requests_per_second=1, burst=1)
        await asyncio.to_thread(gateway.start, [make_tenant("acme", limit=limit)])
        noted = {f"client-{number}": Noted() for number in range(CLIENTS)}

        async def client(name: str) -> int:
            own = transport.AsyncRetryTransport(noted[name], PATIENT)
            async with httpx.AsyncClient(transport=own, base_url=gateway.url, timeout=60) as http:
                headers = {"x-tenant-id": "acme", "idempotency-key": name}
                return (await http.post("/v1/events", headers=headers)).status_code

        clients = [asyncio.create_task(client(name), name=name) for name in noted]
        await eventually(lambda: len(chosen) >= CLIENTS * 0.9, "nearly all have been refused")
        # The limit is raised, as a person would.
        gateway.swap([make_tenant("acme", retries=3)])
        assert Counter(await asyncio.gather(*clients)) == {200: CLIENTS}

    first = [(noted[name].asked[0], pauses[0]) for name, pauses in chosen.items()]
    print(f"{len(first)} were told to wait {Counter(asked for asked, _ in first)} seconds")
    # The gateway doesn't tell all the same, and nobody comes before he was asked to.
    assert {asked for asked, _ in first} == {1, 2}
    assert all(pause >= asked for asked, pause in first)
    # Who was told the same comes back over half of that time, and no tenth of it sees most of them.
    for seconds, told in Counter(asked for asked, _ in first).items():
        tenths = Counter(int((pause - asked) / (seconds / 20)) for asked, pause in first if asked == seconds)
        assert max(tenths.values()) < told * 0.2, (seconds, tenths)
