"""The checks of a preview on a real service with a real database, reached as a preview is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from infra.previews import checks
from infra.previews.checks import Check, Checks
from infra.previews.engine import Found
from infra.previews.request import Smoke, SmokeRequest
from infra.previews.signature import Origin
from kilo.context import acting_for
from kilo.observe.tracing import new_trace
from kilo.outbox import Event, enqueue
from tests.infra.previews.support import settings


@dataclass
class Here:
    """A stage on this machine, whose addresses are reached as they are."""

    is_here: bool = True

    def reachable(self, text: str) -> str:
        return text


class Service(BaseHTTPRequestHandler):
    """Writes an event for each request: of its trace, of another, or none."""

    database_url = ""
    traces = "kept"

    def do_PUT(self) -> None:
        header = self.headers["traceparent"] if self.traces == "kept" else str(new_trace())
        if self.traces != "none":
            with psycopg.connect(self.database_url) as connection, acting_for("preview", header):
                enqueue(connection, Event("preview", "item", "1", "item.changed", {}))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nobody reads it."""


@pytest.fixture
def address(database_url: str) -> Iterator[str]:
    Service.database_url = database_url
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def tried(address: str, database_url: str, **changes: object) -> dict[str, Check]:
    preview = settings(**changes)
    found = Found(preview.name, preview, preview.expires_at, address, database_url, 1)
    smoke = Smoke(requests=(SmokeRequest(method="PUT", path="/v1/items/1", status=204),))
    return {check.name: check for check in Checks(Here(), preview, found, smoke, Origin()).run()}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("traces", "state", "detail"),
    [
        ("kept", "green", "from the request to its event: "),
        ("lost", "red", "no event carries on the trace of the request that caused it"),
        ("none", "red", "the smoke test's requests wrote no event"),
    ],
)
def test_a_trace_is_followed_from_the_request_to_its_event(
    traces: str, state: str, detail: str, address: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody consumes here, and no Prometheus is there: what these say is not of this test.
    monkeypatch.setattr(checks, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(Service, "traces", traces)
    found = tried(address, database_url)
    assert found["smoke test"].state == "green", found["smoke test"].detail
    assert (found["trace"].state, found["trace"].detail.startswith(detail)) == (state, True), found["trace"]


def test_a_service_without_events_has_no_trace_to_follow(
    address: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "PATIENCE_SECONDS", 0.0)
    trace = tried(address, database_url, announces=False)["trace"]
    assert (trace.state, trace.detail) == (
        "not checked",
        "the service writes no events that a request could be followed to",
    )
