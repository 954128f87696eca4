"""A gateway that is to stop loses no request of a kept connection, and tenants can not ask for it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from os import kill

import httpx

from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant

_CLIENTS = 16


@dataclass
class Clients:
    """Clients that keep their connection for as long as they may, as a load balancer does.

    A new connection is made to the gateway that is named at that moment.
    """

    port: int
    outcomes: Counter[str] = field(default_factory=Counter[str])
    closed_politely: int = 0

    async def run(self, stopping: asyncio.Event) -> None:
        await asyncio.gather(*(self._client(number, stopping) for number in range(_CLIENTS)))

    async def _client(self, number: int, stopping: asyncio.Event) -> None:
        asked = 0
        while not stopping.is_set():
            reader, writer = await asyncio.open_connection(ADDRESS, self.port)
            kept = True
            while kept and not stopping.is_set():
                asked += 1
                try:
                    status, kept = await self._ask(reader, writer, f"{number}-{asked}")
                except (OSError, asyncio.IncompleteReadError):
                    self.outcomes["broken"] += 1
                    break
                self.outcomes[status] += 1
                self.closed_politely += not kept
            writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str
    ) -> tuple[str, bool]:
        lines = (
            "POST /v1/things HTTP/1.1",
            "host: gateway",
            "x-tenant-id: acme",
            f"idempotency-key: {key}",
            "x-test-delay: 0.02",
            "content-length: 0",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        return head.split()[1], "connection: close" not in head


async def test_no_request_is_lost_when_a_gateway_drains_before_it_stops(
    make_gateway: Callable[..., Gateway],
) -> None:
    old, new = (make_gateway(drain_seconds=2) for _ in range(2))
    for each in (old, new):
        await asyncio.to_thread(each.start, [make_tenant("acme")])
    clients, stopping = Clients(old.settings.listener_port), asyncio.Event()
    load = asyncio.create_task(clients.run(stopping))
    await asyncio.sleep(0.5)
    draining = asyncio.create_task(_drain(old))
    # As the Endpoints do: who connects anew is sent to the other one.
    clients.port = new.settings.listener_port
    await asyncio.sleep(1)
    readiness = await asyncio.to_thread(httpx.get, f"{old.operations}/readyz")
    assert readiness.status_code == 503
    assert (await draining).status_code == 200
    assert old.pid is not None
    kill(old.pid, signal.SIGTERM)
    await asyncio.sleep(0.5)
    stopping.set()
    await load
    assert set(clients.outcomes) == {"200"}
    assert clients.closed_politely == _CLIENTS


async def _drain(gateway: Gateway) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as http:
        return await http.get(f"http://{ADDRESS}:{gateway.settings.drain_port}/drain")


def test_the_drain_is_not_to_be_asked_for_on_the_other_ports(gateway_of_two: Gateway) -> None:
    for address in (gateway_of_two.url, gateway_of_two.operations):
        answer = httpx.get(f"{address}/drain", headers={"x-tenant-id": "acme"})
        assert answer.status_code == 404
    assert httpx.get(f"{gateway_of_two.operations}/readyz").status_code == 200
