"""Each role's user on a Kafka has what its work takes, and nothing of the others'."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kilo.bus import Bus, BusError, Message, connect, encode_headers
from kilo.bus.access import CERTIFICATE_VARIABLE, KEY_VARIABLE
from kilo.bus.cli import apply_declared
from kilo.bus.roles import BusRole
from kilo.bus.streams import StreamPolicy
from kilo.errors import BadInput, KiloError
from tests.runtime.bus.guarded_kafka import GuardedKafka, KafkaOfUsers
from tests.runtime.traffic.certificates import Authority


@pytest.fixture(params=["password", "certificate", "token"])
def guarded(
    request: pytest.FixtureRequest, kafka: KafkaOfUsers, monkeypatch: pytest.MonkeyPatch
) -> GuardedKafka:
    made = kafka.stage(request.param)
    made.become(monkeypatch, "operator")
    done = apply_declared(made.outputs.bus, StreamPolicy())
    assert [what for _, what in done] == ["created", "created"]
    assert [what for _, what in apply_declared(made.outputs.bus, StreamPolicy())] == ["up to date"] * 2
    return made


async def user(guarded: GuardedKafka, environment: pytest.MonkeyPatch, role: BusRole) -> Bus:
    guarded.become(environment, role)
    return await connect(guarded.url)


async def publishes(bus: Bus, topic: str) -> bool:
    message = Message(
        f"{topic}.order", "k", encode_headers({"kind": "order.paid", "fingerprint": "f"}), b"{}"
    )
    try:
        (receipt,) = await bus.publish([message], deadline_seconds=5)
    except BusError:
        return False
    return receipt.position is not None


async def reads(bus: Bus, topic: str) -> bool:
    try:
        async with asyncio.timeout(60):
            async for batch in bus.read(topic, 0):
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
    assert await publishes(worker, guarded.topic)
    await worker.close()
    bus = await user(guarded, monkeypatch, role)
    assert await publishes(bus, guarded.topic) is may_publish
    assert await reads(bus, guarded.topic) is may_read
    await bus.close()
    try:
        await asyncio.to_thread(apply_declared, guarded.outputs.bus, StreamPolicy(retention_days=8))
    except KiloError:
        declared = False
    else:
        declared = True
    assert declared is may_declare


async def test_a_certificate_of_somebody_elses_authority_opens_nothing(
    kafka: KafkaOfUsers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guarded = kafka.stage("certificate")
    # Kafka hangs up without a word, so that only the end of the wait ends this.
    monkeypatch.setattr("kilo.bus.kafka._ANSWER_SECONDS", 2.0)
    guarded.become(monkeypatch, "worker")
    certificate, key = Authority().client_files(tmp_path)
    monkeypatch.setenv(CERTIFICATE_VARIABLE, certificate)
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(BusError, match="or it refuses the certificate: see KILO_BUS_CERTIFICATE"):
        await connect(guarded.url)
    monkeypatch.delenv(CERTIFICATE_VARIABLE)
    with pytest.raises(BadInput, match="KILO_BUS_CERTIFICATE: not set while KILO_BUS_KEY is"):
        await connect(guarded.url)
