"""Who gets into a Kafka with users and TLS, and by what a false one is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from kilo.bus import BusError, Message, connect, encode_headers
from kilo.bus.access import CA_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.cli import apply_declared
from kilo.bus.streams import StreamPolicy
from kilo.contract import BusOutputs
from kilo.errors import BadInput
from sandbox.servers.kafka import KafkaGuard, KafkaServer
from tests.events import make_outputs
from tests.runtime.traffic.certificates import Authority

PASSWORD, OTHER = "a-password-of-a-test", "another-password"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[KafkaServer]:
    directory = tmp_path_factory.mktemp("guarded-kafka")
    certificate, key, _ = authority.sign("localhost")
    (directory / "broker.pem").write_bytes(key + certificate)
    users = {"worker": PASSWORD, "consumer": OTHER}
    server = KafkaServer(directory, guard=KafkaGuard(users, directory / "broker.pem"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def ca_file(tmp_path: Path, authority: Authority) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.pem)
    return file


def become(environment: pytest.MonkeyPatch, user: str, password: str, ca_file: Path | None) -> None:
    environment.setenv(USER_VARIABLE, user)
    environment.setenv(PASSWORD_VARIABLE, password)
    environment.delenv(CA_VARIABLE, raising=False)
    if ca_file:
        environment.setenv(CA_VARIABLE, str(ca_file))


def bus_of(kafka: KafkaServer) -> BusOutputs:
    return make_outputs(kafka.url, topic="events").bus


def an_event(n: int) -> Message:
    headers = encode_headers({"Nats-Msg-Id": f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}"})
    return Message("events.order", f"k{n}", headers, b"{}")


async def test_what_a_user_declares_and_publishes_another_reads(
    kafka: KafkaServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "worker", PASSWORD, ca_file)
    bus = bus_of(kafka)
    done = await asyncio.to_thread(apply_declared, bus, StreamPolicy())
    assert [what for _, what in done] == ["created", "created"]
    worker = await connect(kafka.url)
    assert [each.position for each in await worker.publish([an_event(1), an_event(2)])] == [1, 2]
    await worker.close()
    become(monkeypatch, "consumer", OTHER, ca_file)
    consumer = await connect(kafka.url)
    assert await consumer.last_position(bus.stream) == 2
    async for batch in consumer.read(bus.stream, 0):
        if batch:
            assert batch[0].headers["fingerprint"] == "f1"
            break
    await consumer.close()


@pytest.mark.parametrize(
    ("user", "password"), [("worker", "a guess"), ("worker", OTHER), ("nobody", PASSWORD)]
)
async def test_a_stranger_is_refused(
    kafka: KafkaServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    become(monkeypatch, user, password, ca_file)
    with pytest.raises(
        BusError, match=f"refuses user '{user}': see KILO_BUS_USER and KILO_BUS_PASSWORD"
    ) as caught:
        await connect(kafka.url)
    assert password not in str(caught.value)
    with pytest.raises(BusError, match=f"refuses user '{user}'"):
        await asyncio.to_thread(apply_declared, bus_of(kafka), StreamPolicy())


async def test_a_false_kafka_is_refused(
    kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    become(monkeypatch, "worker", PASSWORD, other)
    with pytest.raises(BusError, match=r"no TLS that KILO_BUS_CA .* vouches for: .*certificate"):
        await connect(kafka.url)


async def test_another_name_than_the_certificates_is_refused(
    kafka: KafkaServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "worker", PASSWORD, ca_file)
    with pytest.raises(BusError, match="no TLS that KILO_BUS_CA"):
        await connect(f"kafka://127.0.0.1:{kafka.port}")


async def test_a_password_goes_nowhere_without_authorities(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become(monkeypatch, "worker", PASSWORD, None)
    with pytest.raises(BadInput, match="KILO_BUS_CA: not set while KILO_BUS_USER is"):
        await connect(kafka.url)
    become(monkeypatch, "worker", PASSWORD, tmp_path / "absent.pem")
    with pytest.raises(BadInput, match="is no file of certificates in PEM"):
        await connect(kafka.url)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT"])
def test_the_broker_lets_nobody_in_who_leaves_out_a_part(
    kafka: KafkaServer, ca_file: Path, protocol: str
) -> None:
    client = AdminClient(
        {
            "bootstrap.servers": f"localhost:{kafka.port}",
            "security.protocol": protocol,
            "ssl.ca.location": str(ca_file),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "worker",
            "sasl.password": PASSWORD,
            "log_level": 0,
        }
    )
    with pytest.raises(KafkaException):
        client.list_topics(timeout=5)
