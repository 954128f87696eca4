"""Weights over 100,000 requests, and that none is lost while they are raised: minutes on a small machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kilo.traffic.ramps.confirm import weights_in
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream
from tests.patience import eventually
from tests.runtime.traffic.support import ADDRESS, Gateway, free_port, make_tenant

REQUESTS = 100_000
CONNECTIONS = 16
BURST = 20


class Upstreams:
    """Both versions, as bare as a server can be."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for version in ("stable", "next"):

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str = version
            ) -> None:
                try:
                    while True:
                        await reader.readuntil(b"\r\n\r\n")
                        body = version.encode()
                        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                except (asyncio.IncompleteReadError, ConnectionError):
                    writer.close()

            server = await asyncio.start_server(serve, ADDRESS, 0)
            self.ports[version] = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    def stop(self) -> None:
        for server in self._servers:
            server.close()


async def versions(gateway: Gateway, keys: range) -> dict[int, str]:
    """Which version answers each key; each request has to be answered, with 200."""
    found: dict[int, str] = {}

    async def client(mine: range) -> None:
        reader, writer = await asyncio.open_connection(ADDRESS, gateway.settings.listener_port)
        for start in range(0, len(mine), BURST):
            burst = mine[start : start + BURST]
            for key in burst:
                writer.write(
                    b"GET /v1/search HTTP/1.1\r\nhost: gateway\r\nx-tenant-id: acme\r\n"
                    b"idempotency-key: %d\r\n\r\n" % key
                )
            for key in burst:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().splitlines()
                    if line.startswith(b"content-length")
                )
                found[key] = (await reader.readexactly(length)).decode()
        writer.close()

    await asyncio.gather(*(client(keys[number::CONNECTIONS]) for number in range(CONNECTIONS)))
    return found


@pytest.fixture
def start_gateway(tmp_path: Path) -> Callable[[Upstreams], Gateway]:
    def start(upstreams: Upstreams) -> Gateway:
        stable, following = (
            Upstream(host=ADDRESS, port=upstreams.ports[version]) for version in ("stable", "next")
        )
        settings = GatewaySettings(
            stable=stable,
            features=(GatewayFeature(id="search", next=following),),
            listener_port=free_port(),
            operations_port=free_port(),
            drain_port=free_port(),
        )
        gateway = Gateway(tmp_path / "mount", settings)
        gateway.directory.mkdir()
        gateway.start([make_tenant("acme", ramps={"search": 0})])
        return gateway

    return start


@pytest.mark.timeout(900)
async def test_weights_hold_over_100_000_requests_and_a_raised_one_takes_no_key_back(
    start_gateway: Callable[[Upstreams], Gateway],
) -> None:
    upstreams = Upstreams()
    await upstreams.start()
    gateway = start_gateway(upstreams)
    try:
        moved = set[int]()
        for weight in (1, 10, 50):
            gateway.swap([make_tenant("acme", ramps={"search": weight})])
            await eventually(lambda weight=weight: _weight(gateway) == weight, f"{weight} % in force")
            answers = await versions(gateway, range(REQUESTS))
            now = {key for key, version in answers.items() if version == "next"}
            expected = REQUESTS * weight / 100
            deviation = (expected * (1 - weight / 100)) ** 0.5
            assert abs(len(now) - expected) < 5 * deviation, (weight, len(now))
            assert moved <= now
            moved = now
    finally:
        gateway.stop()
        upstreams.stop()


@pytest.mark.timeout(900)
async def test_no_request_is_lost_while_a_ramp_goes_up_and_back(
    start_gateway: Callable[[Upstreams], Gateway],
) -> None:
    upstreams = Upstreams()
    await upstreams.start()
    gateway = start_gateway(upstreams)
    try:
        sending = asyncio.create_task(versions(gateway, range(REQUESTS)))
        for weight in ("shadow", 1, 5, 25, 50, 100, 0):
            gateway.swap([make_tenant("acme", ramps={"search": weight})])
            await asyncio.sleep(0.5)
        assert len(await sending) == REQUESTS
    finally:
        gateway.stop()
        upstreams.stop()


def _weight(gateway: Gateway) -> int:
    weight = weights_in({"configs": gateway.config_dump("dynamic_route_configs")})["acme", "search"]
    return weight if isinstance(weight, int) else -1
