"""Faults that take more than an object changed or a table locked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import nats

from sandbox import daemon
from tests.alerts.receiver import PATIENCE_SECONDS
from tests.alerts.stage import AlertStage
from tests.patience import until

_KEPT = "512MB"
_SEGMENTS = 20
"""Of 16 MB each: more than half of what is kept, and less than all of it."""


@contextmanager
def retained_wal(stage: AlertStage) -> Generator[None]:
    """No connector, and more than half of the WAL that its slot may retain."""
    with stage.without("StatefulSet", "debezium"):
        stage.sql(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{_KEPT}'")
        stage.sql("SELECT pg_reload_conf()")
        for _ in range(_SEGMENTS):
            stage.sql("SELECT pg_logical_emit_message(false, 'tests', 'x')")
            stage.sql("SELECT pg_switch_wal()")
        yield
    stage.sql("ALTER SYSTEM RESET max_slot_wal_keep_size")
    stage.sql("SELECT pg_reload_conf()")


@contextmanager
def purged_stream(stage: AlertStage) -> Generator[None]:
    """The stream gives up what the consumer, which is away, has not read and the reconciler not compared."""
    outputs = json.loads(stage.kilo("outputs", "--for", "host", "--json").stdout)
    with stage.without("Deployment", "consumer"):
        assert stage.send("acme", 3) == [201] * 3
        until(
            lambda: stage.sql("SELECT count(*) FROM outbox WHERE dequeued_at IS NULL") == [(0,)],
            "the events were not published",
        )
        asyncio.run(_purge(outputs["bus"]))
    yield
    file = stage.directory / "outputs-host.json"
    file.write_text(json.dumps(outputs), encoding="utf-8")
    variables = f"KILO_OUTPUTS={file} DATABASE_URL='{daemon.database_url(stage.directory)}'"
    process = stage.begin(f"env {variables} kilo consumer refill --consumer projection --json")
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    assert json.loads(out)["missing"] >= 3, out


async def _purge(bus: dict[str, Any]) -> None:
    client = await nats.connect(bus["url"])
    try:
        await client.jetstream().purge_stream(bus["stream"])
    finally:
        await client.close()
