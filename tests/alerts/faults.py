"""Faults that take more than an object changed or a table locked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sandbox import daemon
from tests.alerts.receiver import PATIENCE_SECONDS
from tests.alerts.stage import AlertStage
from tests.e2e.wire import access_of, client_of
from tests.patience import until

_SEGMENTS = 140
"""Of 16 MiB each, which are retained: more than half of the sandbox's 4 GiB, and less than all of it."""


@contextmanager
def retained_wal(stage: AlertStage) -> Generator[None]:
    """No connector, and more than half of the WAL that its slot may retain."""
    with stage.without("StatefulSet", "debezium"):
        for _ in range(_SEGMENTS):
            stage.sql("SELECT pg_logical_emit_message(false, 'tests', 'x')")
            stage.sql("SELECT pg_switch_wal()")
        yield


@contextmanager
def purged_stream(stage: AlertStage) -> Generator[None]:
    """The stream gives up what the consumer, which is away, has not read and the reconciler not compared."""
    outputs = json.loads(stage.kilo("outputs", "-s", "dev", "--for", "host", "--json").stdout)
    with stage.without("Deployment", "consumer"), stage.without("Deployment", "outbox-reconciler"):
        assert stage.send("acme", 3) == [201] * 3
        until(
            lambda: stage.sql("SELECT count(*) FROM outbox WHERE dequeued_at IS NULL") == [(0,)],
            "the events were not published",
        )
        asyncio.run(_forget_all(outputs["bus"], stage))
    yield
    file = stage.directory / "outputs-host.json"
    file.write_text(json.dumps(outputs), encoding="utf-8")
    variables = f"KILO_OUTPUTS={file} DATABASE_URL='{daemon.database_url(stage.directory)}'"
    process = stage.begin(f"env {variables} kilo consumer refill --consumer projection --json")
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    assert json.loads(out)["missing"] >= 3, out


async def _forget_all(bus: dict[str, Any], stage: AlertStage) -> None:
    """Let all messages grow too old: nobody may purge them, and the operator says how long they are kept."""
    async with client_of(bus["url"], access_of(stage, "operator")) as client:
        jetstream = client.jetstream()
        declared = (await jetstream.stream_info(bus["stream"])).config
        await jetstream.update_stream(declared.evolve(max_age=1.0, duplicate_window=1.0))
        for _ in range(600):
            if not (await jetstream.stream_info(bus["stream"])).state.messages:
                break
            await asyncio.sleep(0.1)
        await jetstream.update_stream(declared)


@contextmanager
def slow_inserts(stage: AlertStage, tenant: str, seconds: float) -> Generator[None]:
    """Each event of ``tenant`` takes ``seconds`` to be written."""
    wait = f"IF NEW.tenant = '{tenant}' THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW;"
    stage.sql(f"CREATE FUNCTION tests_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {wait} END $$")
    stage.sql("CREATE TRIGGER tests_wait BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION tests_wait()")
    try:
        yield
    finally:
        stage.sql("DROP FUNCTION tests_wait CASCADE")
