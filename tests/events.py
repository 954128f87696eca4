"""A whole path of events for tests: real servers, and the platform's processes as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg

from kilo.bus.cli import apply_declared
from kilo.bus.cloudevents import source_of
from kilo.bus.streams import StreamPolicy
from kilo.cdc.properties import ConnectorSettings, render_properties
from kilo.cdc.publication import apply_capture
from kilo.contract import StackOutputs
from kilo.database import ROLES, migrate
from kilo.database.migrator import use_schema
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.postgres import PostgresServer
from kilo.testing.servers.process import ServerProcess
from sandbox.servers.debezium import DebeziumServer
from sandbox.servers.kafka import KafkaServer
from sandbox.servers.moto import MotoServer

REGION = "eu-central-1"
TENANTS = {"acme": ["email", "phone"], "globex": ["email"], "initech": []}
CDC_AGGREGATES = ("payment",)
PROBES = 8
"""That fail, a second apart, before a connector is started again."""


def make_outputs(
    bus_url: str = "nats://127.0.0.1:1",
    keys: dict[str, str] | None = None,
    topic: str = "events",
    schema: str = "public",
) -> StackOutputs:
    """Outputs of a stage with three tenants; ``keys`` are their KMS keys' ARNs."""
    locked = {
        "provider": "aws",
        "bucket": "b",
        "location": REGION,
        "lock_mode": "unlocked",
        "retention_days": 1,
    }
    registry = {"provider": "aws", "url": "registry.test/kilo", "location": REGION}
    key = {"provider": "aws", "alias": "alias/test"}
    return StackOutputs.model_validate(
        {
            "stage": "test",
            "namespace": "kilo",
            "tenants": {
                tenant: {
                    "tier": "gold" if fields else "bronze",
                    "encryption_key": {**key, "key": (keys or {}).get(tenant, "none")},
                    "encrypted_fields": fields if keys else [],
                }
                for tenant, fields in TENANTS.items()
            },
            "database": {
                "host": "localhost",
                "port": 5432,
                "name": "kilo",
                "schema_name": schema,
                "role_secrets": {},
            },
            "bus": {
                "url": bus_url,
                "stream": topic if bus_url.startswith("kafka") else "EVENTS",
                "subject_prefix": topic,
                "heartbeat_stream": "HEARTBEATS",
                "duplicate_window_seconds": 120,
            },
            "outbox": {
                "table": "outbox",
                "cdc_aggregates": CDC_AGGREGATES,
                "publication": "outbox_cdc",
                "replication_slot": "outbox_cdc",
                "payload_limit_bytes": 65536,
                "fingerprint_window_days": 7,
            },
            "gateway": {"url": "http://localhost", "tenant_header": "x-tenant-id"},
            "registries": {
                "primary": registry,
                "secondary": registry,
                "repositories": [],
                "push_queue_url": "",
            },
            "backups": {"primary": locked, "secondary": locked, "encryption_key": {**key, "key": "none"}},
            "audit": locked,
            "monitoring": {"prometheus_url": "http://localhost"},
        }
    )


async def declare(url: str, outputs: StackOutputs) -> list[tuple[str, str]]:
    """Declare the stage's streams on the server at ``url``."""
    return await asyncio.to_thread(
        apply_declared, outputs.bus.model_copy(update={"url": url}), StreamPolicy()
    )


@dataclass
class Platform:
    """Servers and processes of one path, each of which a test may kill and start again."""

    directory: Path
    postgres: PostgresServer
    bus: NatsServer | KafkaServer
    moto: MotoServer
    outputs: StackOutputs
    database: str
    database_port: int
    """Where processes reach the database; a test may stand between."""
    processes: dict[str, ServerProcess] = field(default_factory=dict[str, ServerProcess])
    debezium: DebeziumServer | None = None

    @property
    def url(self) -> str:
        """The administrator's database URL."""
        schema = self.outputs.database.schema_name
        return f"{self.postgres.url_of(self.database)}?options=-csearch_path%3D{schema}"

    @property
    def ingest_url(self) -> str:
        """Where events are taken."""
        return self.processes["ingest"].env["TEST_URL"]

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def start(self, name: str, arguments: Sequence[str], role: str) -> ServerProcess:
        """Start ``kilo ARGUMENTS`` with the credentials of ``role`` and wait until it is ready."""
        port = free_port()
        url = f"postgresql://{role}:{role}-password@127.0.0.1:{self.database_port}/{self.database}"
        base = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{base}/readyz", timeout=2).status_code == HTTPStatus.OK
            except httpx.HTTPError:
                return False

        process = ServerProcess(
            name=name,
            argv=[sys.executable, "-m", "kilo.cli", *arguments, "--port", str(port)],
            env={
                **os.environ,
                **aws_environment(self.moto.url),
                "DATABASE_URL": url,
                "KILO_OUTPUTS": str(self.directory / "outputs.json"),
                "TEST_URL": base,
            },
            directory=self.directory,
            log_path=self.directory / f"{name}.log",
            ready=ready,
        )
        self.processes[name] = process
        process.start()
        return process

    def make_keys(self) -> None:
        """What the Job of `up` does before ingest starts."""
        url = f"postgresql://kilo_keymaker:kilo_keymaker-password@127.0.0.1:{self.postgres.port}/{self.database}"
        subprocess.run(
            [sys.executable, "-m", "kilo.cli", "fle", "keys", "make"],
            env={
                **os.environ,
                **aws_environment(self.moto.url),
                "KILO_OUTPUTS": str(self.directory / "outputs.json"),
                "DATABASE_URL": url,
            },
            check=True,
            timeout=120,
        )

    def start_ingest(self) -> None:
        self.start("ingest", ["ingest", "serve"], "kilo_ingest")

    def start_worker(self, name: str = "worker") -> None:
        self.start(name, ["outbox", "worker"], "kilo_worker")

    def start_consumer(self, name: str = "consumer") -> None:
        self.start(name, ["consumer", "run"], "kilo_consumer")

    def start_reconciler(self) -> None:
        self.start("reconciler", ["outbox", "reconcile", "--lag-seconds", "3"], "kilo_worker")

    def start_debezium(self, host: str = "127.0.0.1", tls: Mapping[str, str] | None = None) -> None:
        if self.debezium is None:
            place = {"DATABASE_HOST": host, "DATABASE_PORT": str(self.database_port)}
            user = {"DATABASE_USER": "kilo_cdc", "DATABASE_PASSWORD": "kilo_cdc-password"}
            settings = ConnectorSettings(
                self.outputs.bus,
                self.outputs.outbox,
                str(self.directory / "offsets.dat"),
                self.outputs.database.schema_name,
                source_of(self.outputs.stage),
                database_tls=tls or {},
            )
            self.debezium = DebeziumServer(
                self.directory / "debezium",
                render_properties(settings),
                {**place, **user, "DATABASE_NAME": self.database},
            )
        self.debezium.start()

    def start_cdc_watch(self, stalled_seconds: float) -> None:
        assert self.debezium
        arguments = ["cdc", "watch", "--connector", self.debezium.liveness_url]
        self.start("watch", [*arguments, "--stalled-seconds", str(stalled_seconds)], "kilo_cdc")

    def keep_connector_alive(self) -> bool:
        """What the kubelet does: start Debezium again when it ended, or its liveness probe fails."""
        assert self.debezium
        for _ in range(PROBES):
            if not self.debezium.running:
                break
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.processes['watch'].env['TEST_URL']}/livez/connector").is_success:
                    return False
            time.sleep(1)
        self.debezium.kill()
        self.debezium.start()
        return True

    def close(self) -> None:
        for process in self.processes.values():
            process.stop()
        if self.debezium:
            self.debezium.stop()


def aws_environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }


@contextmanager
def make_platform(
    directory: Path,
    postgres: PostgresServer,
    bus: NatsServer | KafkaServer,
    moto: MotoServer,
    database: str,
    *,
    bus_url: str | None = None,
    database_port: int | None = None,
    schema: str = "public",
) -> Generator[Platform]:
    """A migrated database, declared streams and tenants' keys; processes are started by the test.

    Args:
        directory: for outputs and logs.
        postgres: with the empty database.
        bus: NATS or Kafka.
        moto: for the tenants' keys.
        database: its name.
        bus_url: where processes reach the bus, when a test stands between.
        database_port: where processes reach the database, likewise.
        schema: that the platform's tables are in.
    """
    kms = boto3.client(
        "kms",
        endpoint_url=moto.url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    keys = {tenant: kms.create_key()["KeyMetadata"]["Arn"] for tenant in TENANTS}
    outputs = make_outputs(bus_url or bus.url, keys, schema=schema)
    (directory / "outputs.json").write_text(json.dumps(outputs.model_dump(mode="json")), encoding="utf-8")
    url = postgres.url_of(database)
    migrate(url, {role: f"{role}-password" for role in ROLES}, schema=schema)
    with psycopg.connect(url, autocommit=True) as connection:
        use_schema(connection, schema)
        apply_capture(connection, outputs.outbox)
    asyncio.run(declare(bus.url, outputs))
    platform = Platform(directory, postgres, bus, moto, outputs, database, database_port or postgres.port)
    platform.make_keys()
    try:
        yield platform
    finally:
        platform.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = current_database() AND NOT active"
            )
