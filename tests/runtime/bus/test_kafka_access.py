"""Who gets into a Kafka with users and TLS, and by what a false one is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from kilo.bus import BusError, Message, connect, encode_headers
from kilo.bus.access import CA_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.cli import apply_declared
from kilo.bus.streams import StreamPolicy
from kilo.errors import BadInput
from tests.runtime.bus.guarded_kafka import GuardedKafka, KafkaOfUsers, password_of
from tests.runtime.traffic.certificates import Authority


@pytest.fixture
def guarded(kafka: KafkaOfUsers) -> GuardedKafka:
    return kafka.stage("password")


def become(environment: pytest.MonkeyPatch, user: str, password: str, ca_file: Path | None) -> None:
    environment.setenv(USER_VARIABLE, user)
    environment.setenv(PASSWORD_VARIABLE, password)
    environment.delenv(CA_VARIABLE, raising=False)
    if ca_file:
        environment.setenv(CA_VARIABLE, str(ca_file))


def an_event(topic: str, n: int) -> Message:
    headers = encode_headers({"Nats-Msg-Id": f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}"})
    return Message(f"{topic}.order", f"k{n}", headers, b"{}")


async def test_what_a_user_declares_and_publishes_another_reads(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.become(monkeypatch, "operator")
    bus = guarded.outputs.bus
    done = await asyncio.to_thread(apply_declared, bus, StreamPolicy())
    assert [what for _, what in done] == ["created", "created"]
    guarded.become(monkeypatch, "worker")
    worker = await connect(bus.url)
    events = [an_event(guarded.topic, n) for n in (1, 2)]
    assert [each.position for each in await worker.publish(events)] == [1, 2]
    await worker.close()
    guarded.become(monkeypatch, "consumer")
    consumer = await connect(bus.url)
    assert await consumer.last_position(bus.stream) == 2
    async for batch in consumer.read(bus.stream, 0):
        if batch:
            assert batch[0].headers["fingerprint"] == "f1"
            break
    await consumer.close()


@pytest.mark.parametrize(
    ("user", "password"),
    [("worker", "a guess"), ("worker", password_of("consumer")), ("nobody", password_of("worker"))],
)
async def test_a_stranger_is_refused(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    become(monkeypatch, user, password, guarded.kafka.ca_file)
    with pytest.raises(
        BusError, match=f"refuses user '{user}': see KILO_BUS_USER and KILO_BUS_PASSWORD"
    ) as caught:
        await connect(guarded.url)
    assert password not in str(caught.value)
    with pytest.raises(BusError, match=f"refuses user '{user}'"):
        await asyncio.to_thread(apply_declared, guarded.outputs.bus, StreamPolicy())


async def test_who_is_refused_hears_it_before_the_end_of_the_wait(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far beyond what a test may take: only the refusal ends this.
    monkeypatch.setattr("kilo.bus.kafka._ANSWER_SECONDS", 1000.0)
    become(monkeypatch, "worker", "a guess", guarded.kafka.ca_file)
    with pytest.raises(BusError, match="refuses user 'worker'"):
        await connect(guarded.url)


async def test_a_false_kafka_is_refused(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    become(monkeypatch, "worker", password_of("worker"), other)
    with pytest.raises(BusError, match=r"no TLS that KILO_BUS_CA .* vouches for: .*certificate"):
        await connect(guarded.url)


async def test_another_name_than_the_certificates_is_refused(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "worker", password_of("worker"), guarded.kafka.ca_file)
    with pytest.raises(BusError, match="no TLS that KILO_BUS_CA"):
        await connect(guarded.url.replace("localhost", "127.0.0.1"))


async def test_a_password_goes_nowhere_without_authorities(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become(monkeypatch, "worker", password_of("worker"), None)
    with pytest.raises(BadInput, match="KILO_BUS_CA: not set while KILO_BUS_USER is"):
        await connect(guarded.url)
    become(monkeypatch, "worker", password_of("worker"), tmp_path / "absent.pem")
    with pytest.raises(BadInput, match="is no file of certificates in PEM"):
        await connect(guarded.url)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT"])
def test_the_broker_lets_nobody_in_who_leaves_out_a_part(guarded: GuardedKafka, protocol: str) -> None:
    client = guarded.client_over(protocol)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=5)
