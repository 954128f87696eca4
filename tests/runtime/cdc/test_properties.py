"""What Debezium is configured with, from one description for Debezium Server and Kafka Connect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilo.cdc.cli import app
from tests.events import make_outputs


def printed(command: str, url: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (place / "outputs.json").write_text(make_outputs(url).model_dump_json())
    monkeypatch.setenv("KILO_OUTPUTS", str(place / "outputs.json"))
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 0, result.output
    return result.stdout


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("url", "sink", "topic", "aggregate"),
    [
        ("nats://bus:4222", "nats-jetstream", "events.$${routedByValue}", False),
        ("kafka://bus:9092", "kafka", "events", True),
    ],
)
def test_the_sink_is_chosen_by_the_bus_url(
    url: str, sink: str, topic: str, aggregate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = properties(printed("properties", url, tmp_path, monkeypatch))
    assert found["debezium.sink.type"] == sink
    assert found["debezium.transforms.outbox.route.topic.replacement"] == topic
    placement = found["debezium.transforms.outbox.table.fields.additional.placement"]
    assert placement.startswith("message_id:header:Nats-Msg-Id,fingerprint:header:fingerprint,")
    assert found["debezium.transforms.outbox.table.field.event.key"] == "ordering_key"
    assert int(found["debezium.source.max.queue.size.in.bytes"]) < 512 << 20
    assert placement.endswith(",aggregate:header:aggregate") is aggregate
    prefix = "ce_" if aggregate else "ce-"
    # Percent-encoded where the binding wants it, which is on NATS.
    event_id, subject = ("message_id", "aggregate_id") if aggregate else ("ce_id", "ce_subject")
    assert (
        f"{event_id}:header:{prefix}id,kind:header:{prefix}type,{subject}:header:{prefix}subject" in placement
    )
    assert found["debezium.transforms"] == "version,versionheader,outbox,publisher,cesource,contenttype"
    assert found["debezium.transforms.cesource.header"] == f"{prefix}source"
    assert found["debezium.transforms.cesource.value.literal"] == "/kilo/test"
    assert found["debezium.transforms.versionheader.headers"] == f"{prefix}specversion"


def test_kafka_connect_gets_the_same_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = properties(printed("properties", "kafka://bus:9092", tmp_path, monkeypatch))
    connector = json.loads(printed("connector", "nats://bus:4222", tmp_path, monkeypatch))
    assert connector["name"] == "outbox_cdc"
    source = {
        name.removeprefix("debezium.source."): value.replace("${", "${env:")
        for name, value in server.items()
        if name.startswith("debezium.source.") and "offset" not in name
    }
    own = {"offset.mismatch.strategy": "trust_slot"}
    assert connector["config"].items() >= (source | own).items()
    transforms = {
        name.removeprefix("debezium."): value.replace("$${", "${")
        for name, value in server.items()
        if name.startswith("debezium.transforms")
    }
    assert connector["config"].items() >= transforms.items()


def test_no_password_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed("properties", "nats://bus:4222", tmp_path, monkeypatch)
    assert properties(text)["debezium.source.database.password"] == "${DATABASE_PASSWORD}"
