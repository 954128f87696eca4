"""A stage that names a Kafka deploys no NATS, and everything that used it uses Kafka."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.settings import Bus, Kafka
from kilo.bus.kafka_topics import declare_topics
from kilo.bus.streams import StreamPolicy
from kilo.contract import StackOutputs
from tests.components.recorder import Recording, record
from tests.infra.programs import ROOT, pods, texts

BROKERS = ("kafka-0.example:9092", "kafka-1.example:9093", "kafka-2.example:9093")
NETWORK = "10.8.0.0/16"


@cache
def program() -> Recording:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    bus = Bus(kafka=Kafka(brokers=BROKERS, network=NETWORK), replicas=3, retention_days=3)
    return record(lambda: deploy(settings.model_copy(update={"bus": bus})), stack="dev")


def config_map(name: str) -> dict[str, str]:
    return program().one("kubernetes:core/v1:ConfigMap", name).inputs["data"]


def exits(workload: str) -> list[tuple[str, int]]:
    policy = program().one("kubernetes:networking.k8s.io/v1:NetworkPolicy", workload).inputs["spec"]
    return [
        (rule["to"][0]["ipBlock"]["cidr"], rule["ports"][0]["port"])
        for rule in policy["egress"]
        if "ipBlock" in rule["to"][0]
    ]


def test_no_nats_is_deployed() -> None:
    assert not [each for each in program().resources if each.name.startswith("nats")]
    found = {text for each in program().resources for text in texts(each.inputs) if "nats" in text.lower()}
    # Only the header by which NATS knows a message again, which every publisher sends.
    assert all("Nats-Msg-Id" in text and "nats" not in text for text in found)


def test_workloads_read_where_kafka_is() -> None:
    outputs = StackOutputs.model_validate(json.loads(config_map("namespace-outputs")["outputs.json"]))
    assert outputs.bus.url == f"kafka://{','.join(BROKERS)}"
    assert outputs.bus.model_dump(mode="json") == program().outputs["bus"]


def test_what_is_declared_is_what_kafka_can_hold() -> None:
    outputs = StackOutputs.model_validate(program().outputs)
    topics = [topic.name for topic in declare_topics(outputs.bus, StreamPolicy(replicas=3))]
    assert topics == [outputs.bus.stream, outputs.bus.heartbeat_stream]
    arguments: Any = dict(pods(program()))["bus-streams"]["containers"][0]["args"]
    # Kafka would drop the oldest events beyond a size, NATS refuses new ones: so there is none.
    assert arguments == ["bus", "apply", "--replicas=3", "--retention-days=3"]


def test_debezium_writes_to_kafka() -> None:
    lines = config_map("debezium-config")["application.properties"].splitlines()
    assert "debezium.sink.type=kafka" in lines
    assert f"debezium.sink.kafka.producer.bootstrap.servers={','.join(BROKERS)}" in lines


def test_every_client_may_reach_every_broker() -> None:
    for workload in ("debezium", "consumer", "outbox-worker", "outbox-reconciler", "bus-streams"):
        assert {(NETWORK, 9092), (NETWORK, 9093)} <= set(exits(workload)), workload
    assert not {(NETWORK, 9092), (NETWORK, 9093)} & set(exits("ingest"))
