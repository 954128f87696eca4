"""A service and a consumer as processes: from their start to an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.errors import Unreachable
from kilo.outbox import Event, enqueue
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.ports import free_port
from kilo.web import run
from tests.patience import until

pytest_plugins = ["kilo.testing"]

SERVICE = """
import sys
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from kilo.context import current_tenant
from kilo.environment import database_url
from kilo.health import Health
from kilo.web import Database, run

health = Health("database")
database = Database(database_url(), health, name="sample")

async def count(_request):
    async with database.transaction() as connection:
        row = await (await connection.execute("SELECT count(*) FROM outbox")).fetchone()
    return JSONResponse({"tenant": current_tenant(), "events": row[0]})

app = Starlette(routes=[Route("/count", count)])
run(app, name="sample", port=int(sys.argv[1]), health=health, work=[database.run])
"""
CONSUMER = """
import sys
from kilo.consumer import Consumer
from kilo.fle.kms import KmsClients
from kilo.testing.kms import LocalKms
from kilo.web.consuming import run_consumer

consumer = Consumer("sample")

@consumer.on("order.placed")
async def keep(event, connection):
    await connection.execute("INSERT INTO kept VALUES (%s)", (event.aggregate_id,))

run_consumer(consumer, port=int(sys.argv[1]), kms=KmsClients(aws=LocalKms()))
"""


@contextmanager
def process(
    code: str, outputs: StackOutputs, url: str, folder: Path
) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    port, file = free_port(), folder / "outputs.json"
    file.write_text(outputs.model_dump_json())
    environment = {**os.environ, "KILO_OUTPUTS": str(file), "DATABASE_URL": url}
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen([sys.executable, "-c", code, str(port)], env=environment, stderr=log)
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert started.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, "the process is not ready")
        yield started, address
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0, (folder / "log").read_text()
    finally:
        started.kill()
        started.wait()


def test_a_service_verifies_tenants_and_answers_until_it_is_told_to_stop(
    kilo_outputs: StackOutputs, kilo_database_url: str, tmp_path: Path
) -> None:
    with process(SERVICE, kilo_outputs, kilo_database_url, tmp_path) as (_, address):
        answer = httpx.get(f"{address}/count", headers={"x-tenant-id": "acme"})
        assert answer.json() == {"tenant": "acme", "events": 0}
        assert httpx.get(f"{address}/count").status_code == 400
        assert httpx.get(f"{address}/count", headers={"x-tenant-id": "nobody"}).status_code == 403
        metrics = httpx.get(f"{address}/metrics").text
        assert (
            'service_requests_total{method="GET",service="sample",status="200",tenant="acme"} 1.0' in metrics
        )


def test_a_consumer_keeps_what_was_announced(
    kilo_outputs: StackOutputs, kilo_database_url: str, kilo_nats_server: NatsServer, tmp_path: Path
) -> None:
    with psycopg.connect(kilo_database_url) as connection:
        connection.execute("CREATE TABLE kept (id text)")
        enqueue(connection, Event("acme", "order", "42", "order.placed", {}))
    drained = subprocess.run(
        [Path(sys.executable).parent / "kilo", "outbox", "drain"],
        env={
            **os.environ,
            "DATABASE_URL": kilo_database_url,
            "KILO_OUTPUTS": str(_written(kilo_outputs, tmp_path)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert drained.returncode == 0, drained.stderr

    def kept() -> bool:
        with psycopg.connect(kilo_database_url) as connection:
            return connection.execute("SELECT id FROM kept").fetchall() == [("42",)]

    with process(CONSUMER, kilo_outputs, kilo_database_url, tmp_path):
        until(kept, "the event had no effect")


def test_outputs_that_are_not_there_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        raise AssertionError

    monkeypatch.setenv("KILO_OUTPUTS", str(tmp_path / "none.json"))
    with pytest.raises(Unreachable, match="can't be read"):
        run(nothing, name="sample", port=1)


def _written(outputs: StackOutputs, folder: Path) -> Path:
    file = folder / "given.json"
    file.write_text(outputs.model_dump_json())
    return file
