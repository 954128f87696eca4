"""The whole path over Kafka: worker, Debezium Server, and Kafka Connect with connector.json."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from sandbox.toolchain import path
from tests.chaos.conftest import in_stream, wait_for, write
from tests.chaos.run import Scene, scene
from tests.patience import PATIENCE_SECONDS, until


@contextmanager
def kafka_connect(made: Scene, directory: Path) -> Generator[None]:
    """Kafka Connect, standalone, with the connector that the command renders."""
    directory.mkdir()
    platform, port = made.platform, free_port()
    rendered = subprocess.run(
        [sys.executable, "-m", "kilo.cli", "cdc", "connector"],
        env={**os.environ, "KILO_OUTPUTS": str(platform.directory / "outputs.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    (directory / "connector.json").write_text(rendered.stdout)
    (directory / "worker.properties").write_text(
        f"bootstrap.servers=127.0.0.1:{made.to_bus.port}\n"
        f"offset.storage.file.filename={directory}/offsets\n"
        f"listeners=http://127.0.0.1:{port}\n"
        "key.converter=org.apache.kafka.connect.storage.StringConverter\n"
        "value.converter=org.apache.kafka.connect.storage.StringConverter\n"
        "config.providers=env\n"
        "config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider\n"
    )

    def running() -> bool:
        status = httpx.get(f"http://127.0.0.1:{port}/connectors/outbox_cdc/status", timeout=2).json()
        return [task["state"] for task in status["tasks"]] == ["RUNNING"]

    process = ServerProcess(
        name="kafka-connect",
        argv=[
            *(str(path("java")), "-Xmx512m", "-cp", f"{path('kafka')}/*"),
            "org.apache.kafka.connect.cli.ConnectStandalone",
            *(str(directory / name) for name in ("worker.properties", "connector.json")),
        ],
        env={
            **os.environ,
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(platform.database_port),
            "DATABASE_NAME": platform.database,
            "DATABASE_USER": "kilo_cdc",
            "DATABASE_PASSWORD": "kilo_cdc-password",
        },
        directory=directory,
        log_path=directory / "kafka-connect.log",
        ready=running,
    )
    process.start()
    yield
    process.stop()


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_the_whole_path_over_kafka_with_debezium_server_and_kafka_connect(tmp_path: Path) -> None:
    with scene(tmp_path, "kafka") as made:
        platform = made.platform
        platform.start_worker()
        platform.start_consumer()
        platform.start_reconciler()
        platform.start_debezium()
        written = write(platform.url, range(200)) + write(platform.url, range(200), "payment", "2")
        wait_for(made, written)
        assert platform.debezium
        platform.debezium.stop()
        with kafka_connect(made, tmp_path / "connect"):
            written += write(platform.url, range(200, 300), "payment", "2")
            wait_for(made, written)
        # Kafka drops no duplicates: what was published and not confirmed comes again from another publisher.
        every = asyncio.run(in_stream(made))
        first = {each.headers["fingerprint"]: each for each in reversed(every)}
        found = sorted(first.values(), key=lambda each: each.position)
        assert Counter(each.headers["publisher"] for each in found) == {"worker": 200, "cdc": 300}
        assert {each.subject for each in found} == {"events.order", "events.payment"}
        expected = {"Nats-Msg-Id", "fingerprint", "kind", "tenant", "aggregate-id", "created-at", "publisher"}
        assert all(each.headers.keys() >= expected for each in found)
        for aggregate_id in ("1", "2"):
            numbers = [
                int(each.headers["fingerprint"].rpartition("-")[2])
                for each in found
                if each.headers["aggregate-id"] == aggregate_id
            ]
            assert numbers == sorted(numbers)
        waiting = "SELECT count(*) FROM outbox WHERE dequeued_at IS NULL"
        until(lambda: platform.sql(waiting) == [(0,)], "the reconciler did not mark what it read")
        assert platform.sql("SELECT sum(republished) FROM outbox_reconciler") == [(0,)]
