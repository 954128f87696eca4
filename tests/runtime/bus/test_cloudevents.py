"""CloudEvents beside the platform's headers, as the library of the specification's authors reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from kilo.bus import Received, cloudevents, encode_headers, event_headers
from kilo.consumer.event import Unreadable, envelope

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CREATED = datetime(2026, 3, 1, 12, 0, 1, 500, tzinfo=UTC)


def headers(fingerprint: str = "k", aggregate_id: str = "7", trace: str | None = TRACE) -> dict[str, str]:
    return event_headers(
        message_id=f"acme/{fingerprint}#{uuid4().hex}",
        fingerprint=fingerprint,
        kind="order.paid",
        tenant="acme",
        aggregate_id=aggregate_id,
        created_at=CREATED,
        publisher="worker",
        traceparent=trace,
        source=cloudevents.source_of("prod"),
    )


def test_the_specifications_library_reads_an_event() -> None:
    read = http.from_binary(http.HTTPMessage(headers('50%"é', "ä b"), b'{"n": 1}'), JSONFormat())
    assert isinstance(read, CloudEvent)
    assert read.get_attributes() == {
        "specversion": "1.0",
        "id": 'acme/50%"é',
        "source": "/kilo/prod",
        "type": "order.paid",
        "subject": "ä b",
        "time": CREATED,
        "tenant": "acme",
        "traceparent": TRACE,
        "datacontenttype": "application/json",
    }
    assert read.get_data() == {"n": 1}


def test_on_kafka_names_and_values_are_those_of_its_binding() -> None:
    sent = dict(cloudevents.to_kafka(name, value) for name, value in headers('50%"').items())
    raw = {name: value.encode() for name, value in sent.items()}
    read = kafka.from_binary(kafka.KafkaMessage(raw, b"acme/order/7", b'{"n": 1}'), JSONFormat())
    assert read.get_id() == 'acme/50%"'
    assert read.get_extension("partitionkey") == "acme/order/7"
    assert dict(cloudevents.from_kafka(name, value) for name, value in sent.items()) == headers('50%"') | {
        "Nats-Msg-Id": sent["Nats-Msg-Id"]
    }


def test_without_a_trace_there_is_no_such_attribute() -> None:
    assert "traceparent" not in cloudevents.attributes_of(headers(trace=None))


def test_no_value_can_add_a_header() -> None:
    lines = encode_headers(headers("x\r\nce-tenant: globex")).decode().split("\r\n")
    assert [line for line in lines if line.startswith("ce-tenant")] == ["ce-tenant: acme"]


def foreign(**changes: str | None) -> Received:
    event = CloudEvent(
        {
            "id": "A-1",
            "source": "https://billing.example/",
            "type": "invoice.sent",
            "subject": "i-7",
            "time": CREATED,
            "tenant": "acme",
        },
        {"total": 3},
    )
    message = http.to_binary(event, JSONFormat())
    given = {name: value for name, value in (message.headers | changes).items() if value is not None}
    return Received(3, "events.invoice", given, message.body, CREATED.timestamp())


@pytest.mark.parametrize("subject", ["i-7", "invoice/i-7"])
def test_an_event_of_another_system_is_read_by_its_attributes(subject: str) -> None:
    one = envelope(foreign(**{"ce-subject": subject}))
    assert (one.tenant, one.kind, one.aggregate, one.aggregate_id) == (
        "acme",
        "invoice.sent",
        "invoice",
        "i-7",
    )
    assert one.fingerprint == "https://billing.example/#A-1"
    assert one.created_at == CREATED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ce-tenant": None}, "header tenant is missing"),
        ({"ce-specversion": None}, "header fingerprint is missing"),
        ({"ce-specversion": "2.0"}, "header fingerprint is missing"),
        ({"ce-source": None}, "header fingerprint is missing"),
        ({"ce-id": "x" * 400}, "header fingerprint is not"),
        ({"ce-type": "Invoice Sent"}, "header kind is not"),
        ({"ce-time": "yesterday"}, "header created-at is not a time"),
        ({"ce-tenant": "acme%0D%0Ax"}, "header tenant is not"),
    ],
)
def test_what_is_no_event_of_a_tenant_is_parked(changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        envelope(foreign(**changes))


def test_the_platforms_own_event_forwarded_by_others_keeps_its_fingerprint() -> None:
    """By a bridge that passes on CloudEvents alone."""
    only = {name: value for name, value in headers("50%").items() if name.startswith(("ce-", "content"))}
    one = envelope(Received(3, "events.order", only, b"{}", 0.0))
    assert (one.tenant, one.fingerprint) == ("acme", "50%")
