"""An event's life in one table, and the spans of a delivery and of its replay."""

from __future__ import annotations

import json

import psycopg
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from kilo.deadletter import DeadLetters, Filter
from kilo.errors import CheckFailed
from kilo.observe.trace import life_of, trace
from kilo.outbox import Event, enqueue
from kilo.outbox.worker import Worker
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import make

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one provider for good: this one is only what the consumer's spans are made with.
    monkeypatch.setattr("kilo.observe.spans._tracer", provider.get_tracer("kilo"))
    monkeypatch.setattr("kilo.consumer.attempts.exporting", lambda: True)
    return exporter


async def test_a_replays_span_links_to_the_original_and_its_life_is_one_table(
    database_url: str,
    bus: BusServer,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = RuntimeError("down")
    with psycopg.connect(database_url) as connection:
        enqueue(connection, Event("acme", "order", "1", "order.paid", {"n": 1}, "acme/1", PARENT))
    await Worker(database_url, bus.connect).drain()
    async with one.running():
        await one.until("SELECT state FROM dead_letters", [("parked",)])
        one.fail.clear()
        with psycopg.connect(database_url, autocommit=True) as connection:
            letters = DeadLetters(connection)
            (letter,) = letters.find(Filter())
            assert letter.traceparent == PARENT
            letters.edit(letter, '{"n": 2}', "ana")
            letters.replay(letter)
        await one.until("SELECT state FROM dead_letters", [("replayed",)])
    assert "acme/1" in caplog.text
    assert TRACE_ID in caplog.text
    *attempts, replay = spans.get_finished_spans()
    for each in attempts:
        assert each.context
        assert each.parent
        assert otel.format_trace_id(each.context.trace_id) == TRACE_ID
        assert otel.format_span_id(each.parent.span_id) == SPAN_ID
    assert len(attempts) == 3
    assert replay.parent is None
    assert replay.context
    assert otel.format_trace_id(replay.context.trace_id) != TRACE_ID
    (link,) = replay.links
    assert (otel.format_trace_id(link.context.trace_id), otel.format_span_id(link.context.span_id)) == (
        TRACE_ID,
        SPAN_ID,
    )
    assert replay.attributes == {"kilo.tenant": "acme", "kilo.fingerprint": "acme/1"}
    with psycopg.connect(database_url) as connection:
        steps = [(step.where, step.what) for step in life_of(connection, "acme/1")]
    assert steps[:2] == [("outbox", "written"), ("worker", "published")]
    assert ("consumer test", "failed") in steps
    assert ("consumer test", "handled") in steps
    assert any(what == "edited" for _, what in steps)
    assert any(what == "replayed" for _, what in steps)

    import typer

    app = typer.Typer()
    app.command()(trace)
    monkeypatch.setenv("DATABASE_URL", database_url)
    shown = CliRunner().invoke(app, ["acme/1"])
    assert shown.exit_code == 0, shown.output
    assert PARENT in shown.stdout
    # Whatever the terminal's width, where and what stand on one line.
    assert "worker: published, acknowledged by the bus" in shown.stdout
    listed = json.loads(CliRunner().invoke(app, ["acme/1", "--json"]).stdout)
    assert [each["what"] for each in listed][:2] == ["written", "published"]
    missing = CliRunner().invoke(app, ["acme/none"])
    assert isinstance(missing.exception, CheckFailed)
