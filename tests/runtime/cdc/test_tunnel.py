"""The way to the bus that Debezium's client takes: TLS is the tunnel's, user and password are its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError

from kilo.bus.access import Access
from kilo.cdc.tunnel import Tunnel
from kilo.errors import BadInput
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.ports import free_port
from tests.events import declare
from tests.patience import eventually
from tests.runtime.bus.guarded import PASSWORD, Guarded, guarded_server
from tests.runtime.traffic.certificates import Authority


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = guarded_server(tmp_path / "guarded")
    made.server.start()
    yield made
    made.server.stop()


@asynccontextmanager
async def tunnel(url: str, access: Access) -> AsyncGenerator[str]:
    """The URL by which a client beside it reaches ``url``."""
    port, stopping = free_port(), asyncio.Event()
    running = asyncio.create_task(Tunnel("127.0.0.1", port, url, lambda: access).run(stopping))
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            break
    yield f"nats://127.0.0.1:{port}"
    stopping.set()
    await asyncio.wait_for(running, 90)


def by_address(guarded: Guarded) -> tuple[str, Access]:
    address = f"tls://127.0.0.1:{guarded.server.port}"
    return address, Access(ca_file=str(guarded.ca_file), server_name="localhost")


async def refused(url: str, password: str = PASSWORD) -> None:
    with pytest.raises((NatsError, OSError, TimeoutError)):
        await nats.connect(
            url, user="cdc", password=password, allow_reconnect=False, max_reconnect_attempts=1
        )


async def test_a_plain_client_publishes_through_it_with_its_own_password(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.become(monkeypatch, "operator")
    await declare(guarded.url, guarded.outputs)
    async with tunnel(*by_address(guarded)) as url:
        client = await nats.connect(url, user="cdc", password=PASSWORD)
        for n in range(1, 21):
            stored = await client.jetstream().publish("events.payment", b"x" * 500_000)
            assert stored.seq == n
        await client.close()
        await refused(url, "a guess")


@pytest.mark.parametrize("fault", ["another authority", "another name", "no file"])
async def test_to_a_false_bus_nothing_goes_through(
    guarded: Guarded, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    address, access = by_address(guarded)
    if fault == "another authority":
        guarded.ca_file.write_bytes(Authority().pem)
    elif fault == "another name":
        access = Access(ca_file=access.ca_file, server_name="nats.kilo")
    else:
        guarded.ca_file.unlink()
    async with tunnel(address, access) as url:
        await refused(url)
        await eventually(lambda: "certificate" in caplog.text, "nobody says why")
    assert PASSWORD not in caplog.text


async def test_a_bus_without_tls_is_shown_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = NatsServer(tmp_path)
    server.start()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Authority().pem)
    async with tunnel(f"tls://127.0.0.1:{server.port}", Access(ca_file=str(ca_file))) as url:
        await refused(url)
        await eventually(lambda: "it offers no TLS" in caplog.text, "nobody says why")
    server.stop()


async def test_a_bus_that_ends_ends_the_client_too(guarded: Guarded) -> None:
    ended = asyncio.Event()

    async def closed() -> None:
        ended.set()

    async with tunnel(*by_address(guarded)) as url:
        await nats.connect(url, user="cdc", password=PASSWORD, allow_reconnect=False, closed_cb=closed)
        guarded.server.kill()
        await asyncio.wait_for(ended.wait(), 90)
        await refused(url)
        guarded.server.start()
        client = await nats.connect(url, user="cdc", password=PASSWORD)
        await client.close()


@pytest.mark.parametrize("url", ["nats://127.0.0.1:4222", "kafka://broker:9092", "tls://bus"])
def test_it_leads_to_nats_with_tls_alone(url: str) -> None:
    with pytest.raises(BadInput, match="a tunnel leads to a NATS with TLS"):
        Tunnel("127.0.0.1", 1, url, Access)
