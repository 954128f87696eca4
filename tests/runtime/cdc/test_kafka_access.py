"""Debezium shows a Kafka who it is: what it captures arrives, and a false Kafka gets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from components.processes.change_capture import BUS_PLACES, BUS_VARIABLES
from kilo.bus.access import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    SECRET_FILES,
    USER_VARIABLE,
)
from kilo.bus.cli import apply_declared
from kilo.bus.streams import StreamPolicy
from kilo.cdc.properties import ALLOWED_URLS, ConnectorSettings, render_properties
from kilo.cdc.publication import apply_capture
from kilo.contract import StackOutputs
from sandbox.servers.debezium import DebeziumServer
from tests.events import CDC_AGGREGATES, make_outputs
from tests.patience import until
from tests.runtime.bus.guarded_kafka import GuardedKafka, KafkaOfUsers, password_of
from tests.runtime.conftest import BusServer
from tests.runtime.traffic.certificates import Authority

RENEWALS = 3


@pytest.fixture(params=["password", "certificate", "token"])
def guarded(request: pytest.FixtureRequest, kafka: KafkaOfUsers) -> Iterator[GuardedKafka]:
    kafka.endpoint.lives_seconds = 20
    yield kafka.stage(request.param)
    kafka.endpoint.lives_seconds = 600


@pytest.fixture
def captured_url(database_url: str) -> Iterator[str]:
    """A database with the slot of a stage, which ends with the test."""
    outbox = make_outputs().outbox
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_capture(connection, outbox)
        yield database_url
        connection.execute("SELECT pg_drop_replication_slot(%s)", (outbox.replication_slot,))


def debezium(
    directory: Path, guarded: GuardedKafka, outputs: StackOutputs, url: str, ca_file: Path
) -> DebeziumServer:
    """As the stage's pod has it."""
    settings = ConnectorSettings(
        outputs.bus, outputs.outbox, str(directory / "offsets.dat"), bus_shown=guarded.by
    )
    of_process = guarded.shown("cdc") | {CA_VARIABLE: str(ca_file)}
    secret = {
        SECRET_FILES[variable]: Path(of_process[variable]).read_text()
        for variable in (CERTIFICATE_VARIABLE, KEY_VARIABLE)
        if guarded.by == "certificate"
    }
    secret |= {name: of_process[name] for name in (USER_VARIABLE, PASSWORD_VARIABLE) if name in of_process}
    parts = conninfo_to_dict(url)
    return DebeziumServer(
        directory,
        render_properties(settings),
        {
            **{variable: secret[key] for variable, key in BUS_VARIABLES[guarded.by].items()},
            **{name: of_process[known] for name, known in BUS_PLACES.items() if known in of_process},
            "DATABASE_HOST": str(parts["host"]),
            "DATABASE_PORT": str(parts["port"]),
            "DATABASE_NAME": str(parts["dbname"]),
            "DATABASE_USER": str(parts["user"]),
            "DATABASE_PASSWORD": str(parts.get("password", "none")),
        },
        java_options=[f"-D{ALLOWED_URLS}={guarded.kafka.endpoint.url}"],
    )


def write(url: str, first: int, last: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " SELECT 'acme', %s, n::text, 'k', '{}', 'f' || n FROM generate_series(%s::int, %s::int) n",
            (CDC_AGGREGATES[0], first, last),
        )


def test_what_is_captured_arrives_at_a_kafka_with_users(
    guarded: GuardedKafka, captured_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = guarded.outputs
    guarded.become(monkeypatch, "operator")
    apply_declared(outputs.bus, StreamPolicy())
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    false = debezium(tmp_path / "false", guarded, outputs, captured_url, other)
    true = debezium(tmp_path / "true", guarded, outputs, captured_url, guarded.kafka.ca_file)
    write(captured_url, 1, 20)
    guarded.become(monkeypatch, "consumer")
    bus = BusServer(guarded.kafka.server, outputs, guarded.url)
    log = tmp_path / "false" / "debezium.log"
    try:
        false.start()
        until(lambda: "certif" in log.read_text(), "it does not say that Kafka is a false one")
        false.kill()
        assert asyncio.run(bus.all()) == []
        given = guarded.kafka.endpoint.given
        given.clear()
        true.start()
        asyncio.run(bus.wait(lambda each: len(each) >= 20))
        if guarded.by == "token":
            until(lambda: given["cdc"] > RENEWALS, "it fetches no other token before one ends")
        write(captured_url, 21, 40)
        found = asyncio.run(bus.wait(lambda each: len(each) >= 40))
    finally:
        false.kill()
        true.stop()
    assert [each.headers["fingerprint"] for each in found] == [f"f{n}" for n in range(1, 41)]
    assert password_of("cdc") not in (tmp_path / "true" / "debezium.log").read_text()
    assert all(each.headers["publisher"] == "cdc" for each in found)
