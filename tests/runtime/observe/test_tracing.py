"""Trace context by the specification's rules, and spans that reach a collector."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilo.observe.tracing import TraceContext, new_trace, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = "0123456789abcdef"


def test_header_of_the_specification_is_read_and_written() -> None:
    header = f"00-{TRACE}-{SPAN}-01"
    context = parse_traceparent(header)
    assert context == TraceContext(TRACE, SPAN, sampled=True)
    assert str(context) == header


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\nx-injected: 1",
    ],
)
def test_invalid_header_is_ignored(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-03-what-the-future-will-be") == TraceContext(TRACE, SPAN)


@given(st.text(HEX, min_size=32, max_size=32), st.text(HEX, min_size=16, max_size=16), st.booleans())
def test_what_is_written_is_read_back(trace_id: str, span_id: str, sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, sampled)
    valid = int(trace_id, 16) and int(span_id, 16)
    assert parse_traceparent(str(context)) == (context if valid else None)


def test_child_stays_in_the_trace() -> None:
    parent = new_trace(sampled=False)
    child = parent.child()
    assert (child.trace_id, child.sampled) == (parent.trace_id, False)
    assert child.span_id != parent.span_id


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # Of its own, since a process has one tracer provider for good.
    code = (
        "from opentelemetry import trace\n"
        "from kilo.observe.tracing import export_spans\n"
        "from kilo.contract import StackOutputs, MonitoringOutputs\n"
        "known = StackOutputs.model_construct(tenants={}, monitoring=MonitoringOutputs(prometheus_url=''))\n"
        "print(export_spans('ingest', known))\n"
        "with trace.get_tracer('test').start_as_current_span('POST /v1/events'): pass\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_spans_reach_the_collector_where_one_is_named() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = run({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"})
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout == "True\n"
    assert [path for path, _ in received] == ["/v1/traces"]
    assert b"POST /v1/events" in received[0][1]
    assert b"ingest" in received[0][1]


def test_no_collector_means_no_export() -> None:
    done = run({})
    assert done.stdout == "False\n"
    assert done.stderr == ""
