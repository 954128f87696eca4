"""A stage that names a Kafka deploys no NATS, and everything that used it uses Kafka."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.settings import Bus, Kafka, KafkaAccess
from kilo.bus.access import Shown
from kilo.bus.kafka_topics import declare_topics
from kilo.bus.roles import BusRole, bus_secret
from kilo.bus.streams import StreamPolicy
from kilo.contract import StackOutputs
from tests.components.recorder import Recording, record
from tests.infra.programs import ROOT, pods, texts

BROKERS = ("kafka-0.example:9092", "kafka-1.example:9093", "kafka-2.example:9093")
NETWORK = "10.8.0.0/16"


CLIENTS: dict[str, BusRole] = {
    "bus-streams": "operator",
    "consumer": "consumer",
    "outbox-worker": "worker",
    "outbox-reconciler": "reconciler",
    "debezium": "cdc",
}


@cache
def program(shown: Shown | None = None) -> Recording:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    access = KafkaAccess(shown=shown, secrets={"worker": "kafka-worker"}, generation=4) if shown else None
    bus = Bus(kafka=Kafka(brokers=BROKERS, network=NETWORK, access=access), replicas=3, retention_days=3)
    return record(lambda: deploy(settings.model_copy(update={"bus": bus})), stack="dev")


def config_map(name: str, shown: Shown | None = None) -> dict[str, str]:
    return program(shown).one("kubernetes:core/v1:ConfigMap", name).inputs["data"]


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


def test_without_users_nobody_shows_anything() -> None:
    assert not [text for each in program().resources for text in texts(each.inputs) if "kilo-bus" in text]
    assert StackOutputs.model_validate(program().outputs).bus.role_secrets == {}


@pytest.mark.parametrize("shown", ["password", "certificate"])
def test_each_client_is_a_user_of_its_own_and_believes_that_secrets_authorities(shown: Shown) -> None:
    by_name: dict[str, Any] = dict(pods(program(shown)))
    secrets = StackOutputs.model_validate(program(shown).outputs).bus.role_secrets
    assert secrets["worker"] == "kafka-worker"
    for workload, role in CLIENTS.items():
        (container,) = by_name[workload]["containers"]
        secret = "kafka-worker" if role == "worker" else bus_secret(role)
        assert secrets[role] == secret
        named = {each["secret"]["secretName"] for each in by_name[workload]["volumes"] if "secret" in each}
        assert named == {secret}, workload
        assert "/etc/kilo-bus" in {mount["mountPath"] for mount in container["volumeMounts"]}
        variables = {each["name"]: each.get("value") for each in container["env"]}
        of_bus = {
            each["name"]: each["valueFrom"]["secretKeyRef"]
            for each in container["env"]
            if each.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == secret
        }
        assert "/etc/kilo-bus/ca.pem" in variables.values(), workload
        assert "KILO_BUS_NAME" not in variables
        if workload == "debezium":
            wanted = (
                {"BUS_CERTIFICATE", "BUS_KEY"} if shown == "certificate" else {"BUS_USER", "BUS_PASSWORD"}
            )
        elif shown == "certificate":
            wanted = set[str]()
            assert variables["KILO_BUS_KEY"] == "/etc/kilo-bus/tls.key"
        else:
            wanted = {"KILO_BUS_USER", "KILO_BUS_PASSWORD"}
        assert of_bus.keys() == wanted, workload


def test_another_generation_replaces_every_client() -> None:
    templates = [
        each.inputs["spec"]["template"]["metadata"]
        for each in program("password").resources
        if "template" in each.inputs.get("spec", {})
    ]
    marked = {
        each["labels"]["app.kubernetes.io/name"]
        for each in templates
        if (each.get("annotations") or {}).get("kilo.dev/bus-credentials") == "4"
    }
    assert marked == CLIENTS.keys()


def test_debezium_goes_to_the_brokers_itself_in_tls() -> None:
    lines = config_map("debezium-config", "password")["application.properties"].splitlines()
    producer = "debezium.sink.kafka.producer."
    assert f"{producer}security.protocol=SASL_SSL" in lines
    assert f"{producer}ssl.truststore.location=${{BUS_CA}}" in lines
    (watch,) = dict(pods(program("password")))["debezium"]["initContainers"]
    assert not [each for each in watch["args"] if "tunnel" in each]
