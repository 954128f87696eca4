"""Each role's user on a Kafka has what its work takes, and nothing of the others'."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilo.bus import Bus, BusError, Message, connect, encode_headers
from kilo.bus.access import CERTIFICATE_VARIABLE, KEY_VARIABLE
from kilo.bus.cli import apply_declared
from kilo.bus.roles import BusRole
from kilo.bus.streams import StreamPolicy
from kilo.contract import BusOutputs
from kilo.errors import BadInput, KiloError
from tests.events import make_outputs
from tests.runtime.bus.guarded_kafka import GuardedKafka, guarded_kafka
from tests.runtime.traffic.certificates import Authority


@pytest.fixture(scope="module", params=["password", "certificate"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuardedKafka]:
    directory = tmp_path_factory.mktemp("guarded-kafka")
    made = guarded_kafka(directory, by_certificate=request.param == "certificate")
    made.server.start()
    environment = pytest.MonkeyPatch()
    with environment.context() as patched:
        made.become(patched, "operator")
        done = apply_declared(bus_of(made), StreamPolicy())
        assert [what for _, what in done] == ["created", "created"]
        assert [what for _, what in apply_declared(bus_of(made), StreamPolicy())] == ["up to date"] * 2
    yield made
    made.server.kill()


def bus_of(guarded: GuardedKafka) -> BusOutputs:
    return make_outputs(guarded.server.url, topic="events").bus


async def user(guarded: GuardedKafka, environment: pytest.MonkeyPatch, role: BusRole) -> Bus:
    guarded.become(environment, role)
    return await connect(guarded.server.url)


async def publishes(bus: Bus) -> bool:
    message = Message("events.order", "k", encode_headers({"kind": "order.paid", "fingerprint": "f"}), b"{}")
    try:
        (receipt,) = await bus.publish([message], deadline_seconds=5)
    except BusError:
        return False
    return receipt.position is not None


async def reads(bus: Bus) -> bool:
    try:
        async with asyncio.timeout(60):
            async for batch in bus.read("events", 0):
                if batch:
                    return True
    except BusError:
        pass
    return False


@pytest.mark.parametrize(
    ("role", "may_publish", "may_read", "may_declare"),
    [
        ("worker", True, False, False),
        ("cdc", True, False, False),
        ("consumer", False, True, False),
        ("reconciler", True, True, False),
        ("operator", False, False, True),
    ],
)
async def test_a_role_does_its_own_work_alone(
    guarded: GuardedKafka,
    monkeypatch: pytest.MonkeyPatch,
    role: BusRole,
    may_publish: bool,
    may_read: bool,
    may_declare: bool,
) -> None:
    worker = await user(guarded, monkeypatch, "worker")
    assert await publishes(worker)
    await worker.close()
    bus = await user(guarded, monkeypatch, role)
    assert await publishes(bus) is may_publish
    assert await reads(bus) is may_read
    await bus.close()
    try:
        await asyncio.to_thread(apply_declared, bus_of(guarded), StreamPolicy(retention_days=8))
    except KiloError:
        declared = False
    else:
        declared = True
    assert declared is may_declare


async def test_a_certificate_of_somebody_elses_authority_opens_nothing(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not guarded.by_certificate:
        pytest.skip("it knows its users by password")
    guarded.become(monkeypatch, "worker")
    certificate, key = Authority().client_files(tmp_path)
    monkeypatch.setenv(CERTIFICATE_VARIABLE, certificate)
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(BusError, match="or it refuses the certificate: see KILO_BUS_CERTIFICATE"):
        await connect(guarded.server.url)
    monkeypatch.delenv(CERTIFICATE_VARIABLE)
    with pytest.raises(BadInput, match="KILO_BUS_CERTIFICATE: not set while KILO_BUS_KEY is"):
        await connect(guarded.server.url)
