"""A stage that names a Kafka deploys no NATS, and everything that used it uses Kafka."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.kafka_settings import Kafka, KafkaAccess, Tokens
from infra.settings import Bus
from kilo.bus.access import Shown
from kilo.bus.kafka_topics import declare_topics
from kilo.bus.roles import BusRole, bus_secret
from kilo.bus.streams import StreamPolicy
from kilo.cdc.properties import ALLOWED_URLS
from kilo.contract import StackOutputs
from tests.components.recorder import Recording, record
from tests.infra.programs import ROOT, pods, texts

BROKERS = ("kafka-0.example:9092", "kafka-1.example:9093", "kafka-2.example:9093")
NETWORK = "10.8.0.0/16"
TOKENS = Tokens(endpoint="https://id.example:8443/token", scope="kafka", network="10.9.0.0/16")
CLUSTER = "arn:aws:kafka:eu-west-1:123456789012:cluster/events/8a4b6d1e-2f6f-4d3a-9b0e-0c1d2e3f4a5b-2"

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
    access = (
        KafkaAccess(
            shown=shown,
            secrets={"worker": "kafka-worker"},
            generation=4,
            tokens=TOKENS if shown == "token" else None,
            msk_cluster=CLUSTER if shown == "aws-msk-iam" else None,
        )
        if shown
        else None
    )
    bus = Bus(kafka=Kafka(brokers=BROKERS, network=NETWORK, access=access), replicas=3, retention_days=3)
    return record(lambda: deploy(settings.model_copy(update={"bus": bus})), stack="dev")


def config_map(name: str, shown: Shown | None = None) -> dict[str, str]:
    return program(shown).one("kubernetes:core/v1:ConfigMap", name).inputs["data"]


def exits(workload: str, shown: Shown | None = None) -> list[tuple[str, int]]:
    policy = program(shown).one("kubernetes:networking.k8s.io/v1:NetworkPolicy", workload).inputs["spec"]
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


@pytest.mark.parametrize("shown", ["password", "certificate", "token", "aws-msk-iam"])
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
        known_by_user = shown in {"password", "token"}
        if workload == "debezium":
            wanted = {"BUS_CERTIFICATE", "BUS_KEY"} if shown == "certificate" else set[str]()
            wanted |= {"BUS_USER", "BUS_PASSWORD"} if known_by_user else set()
        else:
            wanted = {"KILO_BUS_USER", "KILO_BUS_PASSWORD"} if known_by_user else set[str]()
            assert variables.get("KILO_BUS_KEY") == (
                "/etc/kilo-bus/tls.key" if shown == "certificate" else None
            )
            assert variables.get("KILO_BUS_AWS_REGION") == ("eu-west-1" if shown == "aws-msk-iam" else None)
        assert of_bus.keys() == wanted, workload


def test_each_client_may_fetch_tokens_and_knows_where() -> None:
    by_name: dict[str, Any] = dict(pods(program("token")))
    for workload in CLIENTS:
        assert ("10.9.0.0/16", 8443) in exits(workload, "token")
        (container,) = by_name[workload]["containers"]
        variables = {each["name"]: each.get("value") for each in container["env"]}
        prefix = "BUS" if workload == "debezium" else "KILO_BUS"
        assert variables[f"{prefix}_TOKEN_URL"] == TOKENS.endpoint
        assert variables[f"{prefix}_TOKEN_SCOPE"] == "kafka"
        assert variables[f"{prefix}_TOKEN_CA"] == "/etc/kilo-bus/token-ca.pem"
        if workload == "debezium":
            assert f"-D{ALLOWED_URLS}={TOKENS.endpoint}" in (variables["JAVA_OPTS"] or "").split()
    assert ("10.9.0.0/16", 8443) not in exits("ingest", "token")


def test_each_client_of_amazons_kafka_has_an_identity_with_its_roles_rights_alone() -> None:
    made = program("aws-msk-iam")
    for workload, role in CLIENTS.items():
        account = made.one("kubernetes:core/v1:ServiceAccount", workload).inputs["metadata"]
        assert "eks.amazonaws.com/role-arn" in account["annotations"], workload
        assert ("0.0.0.0/0", 443) in exits(workload, "aws-msk-iam")
        policy = json.loads(made.one("aws:iam/rolePolicy:RolePolicy", f"{workload}-kafka").inputs["policy"])
        by_sid = {each["Sid"]: each for each in policy["Statement"]}
        topics = {each.rpartition("/")[2] for each in by_sid["Topics"]["Resource"]}
        assert topics == ({"events", "heartbeat.events"} if role in {"cdc", "operator"} else {"events"})
        actions = {each for statement in policy["Statement"] for each in statement["Action"]}
        assert ("kafka-cluster:WriteData" in actions) is (role in {"worker", "cdc", "reconciler"})
        assert ("kafka-cluster:ReadData" in actions) is (role in {"consumer", "reconciler"})
        assert ("kafka-cluster:CreateTopic" in actions) is (role == "operator")
        assert by_sid["Cluster"]["Resource"] == [CLUSTER]
        group = f"{CLUSTER.replace(':cluster/', ':group/')}/kilo-reader"
        assert [each for each in policy["Statement"] if group in each["Resource"]] == (
            [by_sid["Group"]] if role in {"consumer", "reconciler"} else []
        )
    assert not [each for each in program("token").resources if each.name == "outbox-worker-kafka"]


def test_debezium_signs_for_amazons_kafka_by_its_library() -> None:
    lines = config_map("debezium-config", "aws-msk-iam")["application.properties"].splitlines()
    producer = "debezium.sink.kafka.producer."
    assert f"{producer}sasl.mechanism=AWS_MSK_IAM" in lines
    assert f"{producer}sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;" in lines
    handler = "software.amazon.msk.auth.iam.IAMClientCallbackHandler"
    assert f"{producer}sasl.client.callback.handler.class={handler}" in lines
    assert f"{producer}ssl.truststore.location=${{BUS_CA}}" in lines


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
