"""The whole path on real servers: HTTP, outbox, worker and Debezium, bus, consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat

from kilo.bus.cloudevents import attributes_of
from kilo.outbox import strict_json
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.moto import MotoServer
from tests.events import Platform, make_platform
from tests.patience import until
from tests.runtime.conftest import BusServer


@pytest.fixture(scope="module")
def platform(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    directory = tmp_path_factory.mktemp("path")
    nats, moto = NatsServer(directory / "nats"), MotoServer(directory / "moto")
    nats.start()
    moto.start()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE event_path")
    with make_platform(directory, postgres, nats, moto, "event_path") as made:
        made.start_ingest()
        made.start_worker()
        made.start_consumer()
        made.start_debezium()
        yield made
    moto.stop()
    nats.stop()


def post(
    platform: Platform, tenant: str, key: str, aggregate: str, payload: dict[str, object]
) -> httpx.Response:
    return httpx.post(
        f"{platform.ingest_url}/v1/events",
        headers={"x-tenant-id": tenant, "idempotency-key": key},
        json={
            "aggregate": aggregate,
            "aggregate_id": "1",
            "kind": f"{aggregate}.created",
            "payload": payload,
        },
        timeout=30,
    )


def wait_for(platform: Platform, count: int, tenant: str = "%") -> None:
    def arrived() -> bool:
        return platform.sql("SELECT count(*) FROM inbox WHERE tenant LIKE %s", tenant)[0][0] >= count

    until(arrived, f"fewer than {count} events arrived")


def test_events_arrive_once_by_the_publisher_that_the_stage_names(platform: Platform) -> None:
    payload: dict[str, object] = {"email": "zoë@example.com", "amount": 2**70, "nested": {"phone": "+49 1"}}
    for n in range(20):
        answer = post(platform, "acme", f"k{n}", "payment" if n % 2 else "order", payload)
        assert answer.status_code == 201, answer.text
    assert post(platform, "acme", "k0", "order", payload).status_code == 200
    wait_for(platform, 20)
    rows = platform.sql("SELECT publisher, count(*), sum(duplicates) FROM inbox GROUP BY 1 ORDER BY 1")
    assert rows == [("cdc", 10, 0), ("worker", 10, 0)]
    stored = platform.sql("SELECT payload::text FROM events UNION ALL SELECT payload::text FROM outbox")
    assert len(stored) == 40
    assert not [text for (text,) in stored if "zoë" in text or "+49 1" in text]
    hints = platform.sql("SELECT DISTINCT contact_hint FROM projection WHERE tenant = 'acme'")
    assert hints == [("…@….com",)]


def test_either_publisher_sends_the_same_cloudevent(platform: Platform) -> None:
    for aggregate in ("order", "payment"):
        assert post(platform, "globex", f"ce-{aggregate}", aggregate, {"n": 1}).status_code == 201
    wait_for(platform, 2, "globex")
    messages = {
        each.headers["publisher"]: each
        for each in asyncio.run(BusServer(platform.bus, platform.outputs).all())
        if each.headers["tenant"] == "globex"
    }
    found = {publisher: attributes_of(each.headers) for publisher, each in messages.items()}
    for publisher, aggregate in (("worker", "order"), ("cdc", "payment")):
        read = http.from_binary(
            http.HTTPMessage(dict(messages[publisher].headers), messages[publisher].payload), JSONFormat()
        )
        assert (read.get_id(), read.get_source()) == (f"globex/globex/ce-{aggregate}", "/kilo/test")
        assert (read.get_type(), read.get_subject()) == (f"{aggregate}.created", "1")
        assert read.get_data() == {"n": 1}
        assert read.get_extension("tenant") == "globex"
        assert str(read.get_time()).startswith(messages[publisher].headers["created-at"][:10])
    assert found["worker"].keys() == found["cdc"].keys()


def test_ids_are_encoded_alike_by_either_publisher(platform: Platform) -> None:
    """What a tenant may put into ids and what the binding wants percent-encoded, in raw headers."""
    hostile = '50%"25%41%%"\\,;=&#/?~'
    for aggregate in ("order", "payment"):
        with psycopg.connect(platform.url) as connection:
            connection.execute(
                "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
                " VALUES ('globex', %s, %s, 'k', '{}', %s)",
                (aggregate, hostile, f"{aggregate[0]}%{hostile}"),
            )

    def arrived() -> dict[str, dict[str, str]] | None:
        messages = asyncio.run(BusServer(platform.bus, platform.outputs).all())
        these = [dict(each.headers) for each in messages if each.headers["aggregate-id"] == hostile]
        return {each["publisher"]: each for each in these} if len(these) == 2 else None

    found = until(arrived, "both events arrive")
    encoded = hostile.replace("%", "%25").replace('"', "%22")
    for publisher, first in (("worker", "o"), ("cdc", "p")):
        headers = found[publisher]
        assert headers["ce-subject"] == encoded
        assert headers["ce-id"] == f"globex/{first}%25{encoded}"
        assert attributes_of(headers)["subject"] == headers["aggregate-id"] == hostile
        assert headers["Nats-Msg-Id"] == f"globex/{first}%{hostile}"


VALUES = (
    '{"big": 123456789012345678901234567890123456789, "small": -9007199254740993, "zero": -0, "one": 1.0}',
    '{"fraction": 0.1234567890123456789012345678901, "large": 1.5e+300, "tiny": 1e-300}',
    '{"text": "Zoë 田中 🚚 \\" \\\\ / \\n \\u0001 \\u2028 \\ud83d\\ude9a", "": "", "Zoë 🚚": "a\u2028b"}',
    '{"nested": {"a": [[], {}, [null, true, false, {"b": {"c": ["d"]}}]]}, "null": null}',
    '{"deep": ' + '{"a": [' * 45 + "1" + "]}" * 45 + "}",
    '{"edge": "' + "é" * ((65_536 - len('{"edge": ""}')) // 2) + '"}',
)


def test_payloads_arrive_by_either_publisher_as_the_values_that_were_sent(platform: Platform) -> None:
    sent: dict[str, bytes] = {}
    for aggregate in ("order", "payment"):
        for number, payload in enumerate(VALUES):
            key = f"{aggregate}-{number}"
            head = f'"aggregate": "{aggregate}", "aggregate_id": "{number}", "kind": "{aggregate}.made"'
            answer = httpx.post(
                f"{platform.ingest_url}/v1/events",
                headers={"x-tenant-id": "initech", "idempotency-key": key},
                content=f'{{{head}, "payload": {payload}}}'.encode(),
                timeout=30,
            )
            assert answer.status_code == 201, answer.text
            sent[f"initech/{key}"] = strict_json.canonical(strict_json.parse(payload))
    wait_for(platform, len(sent), "initech")
    messages = [
        each
        for each in asyncio.run(BusServer(platform.bus, platform.outputs).all())
        if each.headers["tenant"] == "initech"
    ]
    assert {each.headers["publisher"] for each in messages} == {"worker", "cdc"}
    arrived = {
        each.headers["fingerprint"]: strict_json.canonical(strict_json.parse(each.payload))
        for each in messages
    }
    assert arrived == sent
