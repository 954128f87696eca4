"""Debezium shows a Kafka who it is: what it captures arrives, and a false Kafka gets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from components.processes.change_capture import BUS_VARIABLES
from kilo.bus.access import CERTIFICATE_VARIABLE, KEY_VARIABLE, PASSWORD_VARIABLE, SECRET_FILES, USER_VARIABLE
from kilo.bus.cli import apply_declared
from kilo.bus.streams import StreamPolicy
from kilo.cdc.properties import ConnectorSettings, render_properties
from kilo.cdc.publication import apply_capture
from kilo.contract import StackOutputs
from sandbox.servers.debezium import DebeziumServer
from tests.events import CDC_AGGREGATES, make_outputs
from tests.patience import until
from tests.runtime.bus.guarded_kafka import GuardedKafka, KafkaOfUsers
from tests.runtime.conftest import BusServer
from tests.runtime.traffic.certificates import Authority


@pytest.fixture(params=["password", "certificate"])
def guarded(request: pytest.FixtureRequest, kafka: KafkaOfUsers) -> GuardedKafka:
    return kafka.stage(request.param)


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
    of_process = guarded.shown("cdc")
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
            "BUS_CA": str(ca_file),
            "DATABASE_HOST": str(parts["host"]),
            "DATABASE_PORT": str(parts["port"]),
            "DATABASE_NAME": str(parts["dbname"]),
            "DATABASE_USER": str(parts["user"]),
            "DATABASE_PASSWORD": str(parts.get("password", "none")),
        },
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
    with psycopg.connect(captured_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " SELECT 'acme', %s, n::text, 'k', '{}', 'f' || n FROM generate_series(1, 20) n",
            (CDC_AGGREGATES[0],),
        )
    guarded.become(monkeypatch, "consumer")
    bus = BusServer(guarded.kafka.server, outputs, guarded.url)
    log = tmp_path / "false" / "debezium.log"
    try:
        false.start()
        until(lambda: "certif" in log.read_text(), "it does not say that Kafka is a false one")
        false.kill()
        assert asyncio.run(bus.all()) == []
        true.start()
        found = asyncio.run(bus.wait(lambda each: len(each) >= 20))
    finally:
        false.kill()
        true.stop()
    assert [each.headers["fingerprint"] for each in found] == [f"f{n}" for n in range(1, 21)]
    assert all(each.headers["publisher"] == "cdc" for each in found)
