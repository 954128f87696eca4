"""Who gets into a Kafka that knows its users by tokens, and that a token is followed by the next in time."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from kilo.bus import Bus, BusError, Message, connect, encode_headers
from kilo.bus.access import (
    AWS_REGION_VARIABLE,
    CA_VARIABLE,
    PASSWORD_VARIABLE,
    TOKEN_CA_VARIABLE,
    TOKEN_URL_VARIABLE,
    USER_VARIABLE,
)
from kilo.bus.cli import apply_declared
from kilo.bus.kafka_access import Failures, msk_token
from kilo.bus.streams import StreamPolicy
from kilo.errors import BadInput
from tests.patience import PATIENCE_SECONDS
from tests.runtime.bus.guarded_kafka import GuardedKafka, KafkaOfUsers, password_of
from tests.runtime.bus.token_endpoint import TokenEndpoint, claims
from tests.runtime.traffic.tokens import Issuer

LIVES_SECONDS = 10
RENEWALS = 3


@pytest.fixture
def guarded(kafka: KafkaOfUsers, monkeypatch: pytest.MonkeyPatch) -> GuardedKafka:
    """Of which this process is the reconciler, which reads and publishes."""
    made = kafka.stage("token")
    made.become(monkeypatch, "operator")
    apply_declared(made.outputs.bus, StreamPolicy())
    made.become(monkeypatch, "reconciler")
    return made


@pytest.fixture
def endpoint(guarded: GuardedKafka) -> Iterator[TokenEndpoint]:
    """As it is told to answer, until the test ends."""
    endpoint = guarded.kafka.endpoint
    clients = endpoint.clients
    yield endpoint
    endpoint.sign, endpoint.lives_seconds, endpoint.clients = endpoint.right, 600, clients


FALSE: dict[str, Callable[[TokenEndpoint], str]] = {
    "of another issuer": lambda endpoint: endpoint.issuer.token(
        **claims("worker", 600, iss="https://id.example.net/")
    ),
    "for another audience": lambda endpoint: endpoint.issuer.token(**claims("worker", 600, aud="others")),
    "of a key of somebody's own": lambda _: Issuer().token(**claims("worker", 600)),
    "unsigned": lambda endpoint: endpoint.issuer.unsigned(**claims("worker", 600)),
    "without an end": lambda endpoint: endpoint.issuer.token(**claims("worker", 600, exp=None)),
    "over": lambda endpoint: endpoint.issuer.token(**claims("worker", -60)),
}


@pytest.mark.parametrize("false", FALSE)
def test_the_broker_believes_no_other_token(
    guarded: GuardedKafka, endpoint: TokenEndpoint, false: str
) -> None:
    shown: list[str] = []

    def show(_: str) -> tuple[str, float]:
        shown.append(FALSE[false](endpoint))
        return shown[-1], time.time() + 600

    said: list[str] = []
    settings: dict[str, Any] = {
        "bootstrap.servers": guarded.url.partition("://")[2],
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(guarded.kafka.ca_file),
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": show,
        "error_cb": lambda error: said.append(error.str()),  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]
        "log_level": 0,
    }
    client = AdminClient(settings)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=5)
    client.poll(0)
    assert shown
    assert any("invalid_token" in each for each in said), said


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT"])
def test_a_stranger_without_a_token_is_not_let_in(guarded: GuardedKafka, protocol: str) -> None:
    client = guarded.client_over(protocol)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=5)


async def test_a_token_that_is_refused_is_told_from_one_that_did_not_come(
    guarded: GuardedKafka, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Issuer()
    endpoint.sign = lambda client, seconds: stranger.token(**claims(client, seconds))
    with pytest.raises(BusError, match="refuses the token of client 'reconciler' from KILO_BUS_TOKEN_URL"):
        await connect(guarded.url)
    endpoint.sign = lambda client, _: endpoint.issuer.token(**claims(client, -60))
    with pytest.raises(BusError, match=r"no token came for client 'reconciler' .*: Must supply an unexpired"):
        await connect(guarded.url)
    monkeypatch.setenv(PASSWORD_VARIABLE, "a-guess")
    with pytest.raises(BusError, match=r"no token came for client 'reconciler' .*invalid_client") as caught:
        await connect(guarded.url)
    assert "a-guess" not in str(caught.value)
    guarded.become(monkeypatch, "reconciler")
    monkeypatch.setenv(TOKEN_CA_VARIABLE, str(guarded.kafka.ca_file))
    with pytest.raises(BusError, match=r"no token came for client 'reconciler' .*certificate") as caught:
        await connect(guarded.url)
    assert password_of("reconciler") not in str(caught.value)


async def test_a_clients_secret_goes_nowhere_in_plain(
    guarded: GuardedKafka, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_URL_VARIABLE, endpoint.url.replace("https", "http"))
    with pytest.raises(BadInput, match="KILO_BUS_TOKEN_URL: no https:// URL"):
        await connect(guarded.url)
    guarded.become(monkeypatch, "reconciler")
    monkeypatch.delenv(CA_VARIABLE)
    with pytest.raises(BadInput, match="KILO_BUS_CA: not set while KILO_BUS_USER is"):
        await connect(guarded.url)
    for name in (USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name)
    with pytest.raises(BadInput, match="KILO_BUS_TOKEN_URL: set while KILO_BUS_USER is not"):
        await connect(guarded.url)


async def publish_and_read(bus: Bus, topic: str, done: Callable[[], bool]) -> None:
    """One event after the other until ``done``, each of which a reader that was there before has once."""
    first = await bus.last_position(topic)
    published, read = list[str](), list[str]()

    async def reading() -> None:
        async for batch in bus.read(topic, first):
            read.extend(each.headers["fingerprint"] for each in batch)
            if done() and read == published:
                return

    reader = asyncio.create_task(reading())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"after {len(published)} events"
        name = f"{first}-{len(published)}"
        headers = encode_headers({"kind": "order.paid", "fingerprint": name})
        (receipt,) = await bus.publish([Message(f"{topic}.order", "k", headers, b"{}")], PATIENCE_SECONDS)
        assert receipt.position is not None, receipt
        published.append(name)
        await asyncio.sleep(0.05)
    await asyncio.wait_for(reader, PATIENCE_SECONDS)
    assert read == published


class Told(Failures):
    """What librdkafka says of its connections, all of it."""

    said: list[str]

    def __init__(self) -> None:
        super().__init__()
        Told.said = []

    def __call__(self, error: KafkaError) -> None:
        super().__call__(error)
        self.said.append(error.str())


async def test_tokens_are_renewed_on_the_connection_without_a_lost_event(
    guarded: GuardedKafka, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.bus.kafka.Failures", Told)
    endpoint.lives_seconds = LIVES_SECONDS
    bus = await connect(guarded.url)
    await bus.last_position(guarded.topic)
    endpoint.given.clear()
    # Of the reader of positions, the consumer and the producer each has its own.
    await publish_and_read(bus, guarded.topic, lambda: endpoint.given["reconciler"] >= 3 * (1 + RENEWALS))
    await bus.close()
    assert Told.said == []  # the broker ends a connection whose token has


async def test_what_an_endpoint_that_is_gone_holds_up_goes_on_when_it_is_back(
    guarded: GuardedKafka, endpoint: TokenEndpoint
) -> None:
    endpoint.lives_seconds = LIVES_SECONDS
    bus = await connect(guarded.url)
    message = Message(f"{guarded.topic}.order", "k", encode_headers({"kind": "k", "fingerprint": "f"}), b"{}")
    (receipt,) = await bus.publish([message], PATIENCE_SECONDS)
    assert receipt.position
    clients, endpoint.clients = endpoint.clients, {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # until the last token is over
        assert time.monotonic() < deadline
        try:
            (receipt,) = await bus.publish([message], deadline_seconds=2)
        except BusError:
            break
    endpoint.clients = clients
    (receipt,) = await bus.publish([message], PATIENCE_SECONDS)
    assert receipt.position
    await bus.close()


ACCESS_KEY, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def aws(guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process with an AWS identity, and nothing else by which a bus could know it."""
    guarded.become(monkeypatch, "reconciler")  # whose authorities of Kafka stay
    for name in (USER_VARIABLE, PASSWORD_VARIABLE, TOKEN_URL_VARIABLE):
        monkeypatch.delenv(name)
    monkeypatch.setenv(AWS_REGION_VARIABLE, "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))


@pytest.mark.usefixtures("aws")
def test_a_token_for_amazons_kafka_is_a_signed_request_of_the_identity(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    token, ends = msk_token("eu-central-1")
    request = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    said = {name: values[0] for name, values in parse_qs(request.query).items()}
    assert (request.scheme, request.hostname) == ("https", "kafka.eu-central-1.amazonaws.com")
    assert said["Action"] == "kafka-cluster:Connect"
    assert said["X-Amz-Expires"] == "900"
    signed = time.mktime(time.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ")) - time.timezone
    assert ends == signed + 900
    assert said["X-Amz-Credential"].startswith(f"{ACCESS_KEY}/")
    assert said["X-Amz-Credential"].endswith("/eu-central-1/kafka-cluster/aws4_request")
    assert said["X-Amz-Security-Token"] == "a-session"
    assert said["X-Amz-Signature"]
    assert SECRET_KEY not in request.geturl()
    assert not [each for each in (SECRET_KEY, said["X-Amz-Signature"]) if each in caplog.text]


@pytest.mark.usefixtures("aws")
async def test_a_process_without_an_aws_identity_is_told_so(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BusError, match=r"KILO_BUS_AWS_REGION: no token for eu-central-1, .*credentials"):
        await connect(guarded.url)
    monkeypatch.setenv(USER_VARIABLE, "reconciler")
    monkeypatch.setenv(PASSWORD_VARIABLE, password_of("reconciler"))
    with pytest.raises(BadInput, match="KILO_BUS_AWS_REGION: set while KILO_BUS_USER is"):
        await connect(guarded.url)


@pytest.mark.usefixtures("aws")
async def test_amazons_tokens_are_renewed_in_the_same_way(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tokens that this broker believes in place of Amazon's, for which there is none here."""
    with pytest.raises(BusError, match="refuses the token of this process's AWS identity"):
        await connect(guarded.url)
    endpoint, given = guarded.kafka.endpoint, list[str]()

    def generate(region: str) -> tuple[str, int]:
        given.append(region)
        ends_ms = int(time.time() + LIVES_SECONDS) * 1000
        return endpoint.right("reconciler", LIVES_SECONDS), ends_ms

    monkeypatch.setattr(MSKAuthTokenProvider, "generate_auth_token", generate)
    monkeypatch.setattr("kilo.bus.kafka.Failures", Told)
    bus = await connect(guarded.url)
    await publish_and_read(bus, guarded.topic, lambda: len(given) >= 3 * (1 + RENEWALS))
    await bus.close()
    assert set(given) == {"eu-central-1"}
    assert Told.said == []
