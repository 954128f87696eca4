"""What the client says is stored is stored once; it repeats what it may, when it may, and no longer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from kilo.client import (
    AsyncEventClient,
    EventClient,
    EventRefused,
    EventsUnavailable,
    NewEvent,
    RetryPolicy,
    Sent,
)
from kilo.errors import BadInput
from tests.runtime.ingest.support import serving_ingest

QUICK = RetryPolicy(seconds=5, first_pause_seconds=0.01, longest_pause_seconds=0.05)


def events(count: int, **other: Any) -> list[NewEvent]:
    return [NewEvent("order", "1", "order.paid", {"n": n}, key=f"k{n}", **other) for n in range(count)]


class Front:
    """Passes requests on to ingest, answers as the test says, or loses the answer of ingest."""

    def __init__(self, upstream: str) -> None:
        self.requests: list[dict[str, str]] = []
        self.plan: list[tuple[int, dict[str, str], bytes] | str] = []
        front, client = self, httpx.Client()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                front.requests.append({name.lower(): value for name, value in self.headers.items()})
                planned = front.plan.pop(0) if front.plan else "pass"
                if isinstance(planned, str):
                    headers = {
                        n: v for n, v in self.headers.items() if n.lower() not in {"host", "connection"}
                    }
                    answer = client.post(upstream + self.path, content=body, headers=headers)
                    if planned == "lost":
                        self.close_connection = True
                        return
                    more = {"content-type": answer.headers["content-type"]}
                    planned = (answer.status_code, more, answer.content)
                status, more, content = planned
                self.send_response(status)
                for name, value in {**more, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def front(database_url: str) -> Iterator[Front]:
    """A real ingest on a real database, behind what a test may make fail."""
    with serving_ingest(database_url) as port:
        made = Front(f"http://127.0.0.1:{port}")
        yield made
        made.close()


def stored(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT fingerprint FROM outbox ORDER BY id").fetchall()
    return [row[0] for row in rows]


Many = Callable[[str, list[NewEvent]], list[Sent]]


def many(url: str, given: list[NewEvent], **more: Any) -> list[Sent]:
    with EventClient(url, "acme", retry=QUICK) as client:
        return client.send_many(given, **more)


def many_async(url: str, given: list[NewEvent]) -> list[Sent]:
    async def run() -> list[Sent]:
        async with AsyncEventClient(url, "acme", retry=QUICK) as client:
            return await client.send_many(given)

    return asyncio.run(run())


@pytest.mark.parametrize("send", [many, many_async])
def test_thousands_are_stored_in_order_in_as_few_requests_as_they_need(
    front: Front, database_url: str, send: Many
) -> None:
    sent = send(front.url, events(2300))
    assert {each.status for each in sent} == {"accepted"}
    assert [each.fingerprint for each in sent] == stored(database_url) == [f"acme/k{n}" for n in range(2300)]
    assert len(front.requests) == 3


def test_an_event_is_sent_by_the_synchronous_and_the_asynchronous_client(front: Front) -> None:
    async def later() -> Sent:
        async with AsyncEventClient(front.url, "acme") as client:
            return await client.send(events(1)[0])

    with EventClient(front.url, "acme") as client:
        assert client.send(events(1)[0]) == Sent("k0", "accepted", "acme/k0")
    assert asyncio.run(later()) == Sent("k0", "duplicate", "acme/k0")


def test_an_answer_that_is_lost_is_asked_for_again_and_the_event_is_there_once(
    front: Front, database_url: str
) -> None:
    front.plan = ["lost", (503, {}, b""), (429, {"retry-after": "0"}, b"{}")]
    with EventClient(front.url, "acme", retry=QUICK) as client:
        assert client.send(events(1)[0]).status == "duplicate"
        front.plan = ["lost"]
        assert {each.status for each in client.send_many(events(3))} == {"duplicate"}
    assert stored(database_url) == ["acme/k0", "acme/k1", "acme/k2"]
    assert {each["idempotency-key"] for each in front.requests if "idempotency-key" in each} == {"k0"}


def test_a_time_to_come_back_is_kept_and_one_beyond_the_budget_ends_the_call(front: Front) -> None:
    with EventClient(front.url, "acme", retry=QUICK) as client:
        front.plan = [(503, {"retry-after": "3600"}, b'{"detail": "closed"}')]
        with pytest.raises(EventsUnavailable, match="503: closed"):
            client.send(events(1)[0])
        front.plan = [(503, {"retry-after": "Wed, 21 Oct 2215 07:28:00 GMT"}, b"")]
        with pytest.raises(EventsUnavailable):
            client.send(events(1)[0])
    assert len(front.requests) == 2


def test_repeats_are_a_share_of_what_the_client_sends(front: Front) -> None:
    with EventClient(front.url, "acme", retry=QUICK) as client:
        front.plan = [(503, {}, b"")] * 100
        for _ in range(10):
            with pytest.raises(EventsUnavailable):
                client.send(events(1)[0])
    assert len(front.requests) == 20, "ten repeats to begin with, and then none"


def test_what_is_refused_is_not_repeated_and_says_its_place(front: Front, database_url: str) -> None:
    with EventClient(front.url, "acme", retry=QUICK) as client:
        with pytest.raises(EventRefused, match="422: kind") as caught:
            client.send(NewEvent("order", "1", "Not A Kind", {}, key="k"))
        assert caught.value.problem["errors"][0]["pointer"] == "#/kind"
        bad = NewEvent("order", "1", "order.paid", {"n": 9}, key="k0")
        first, second = client.send_many([events(1)[0], bad])
        assert (first.status, second.status, second.problem and second.problem["status"]) == (
            ("accepted", "failed", 422)
        )
        sent = client.send_many([NewEvent("order", "2", "order.paid", {}, key="new"), bad], atomic=True)
        assert [each.problem and each.problem["status"] for each in sent] == [424, 422]
    with EventClient(front.url, "nobody") as client, pytest.raises(EventRefused, match="403"):
        client.send_many(events(1))
    assert stored(database_url) == ["acme/k0"]
    assert len(front.requests) == 4


def test_events_that_may_be_tried_again_are_sent_again_alone_and_in_order(
    front: Front, database_url: str
) -> None:
    problem = {"status": 503, "detail": "locked"}
    results = [{"index": n, "status": "failed", "problem": problem} for n in range(3)]
    results[1] = {"index": 1, "status": "accepted", "fingerprint": "acme/k1"}
    front.plan = [(200, {}, json.dumps({"results": results}).encode())]
    sent = many(front.url, events(3))
    assert [each.status for each in sent] == ["accepted"] * 3
    assert stored(database_url) == ["acme/k0", "acme/k2"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"<html>", b'{"status": "accepted"}', b'{"results": 1}', b'{"results": []}',
        b"[" * 100_000,
        b'{"results": [{"index": 1, "status": "accepted", "fingerprint": "a"}]}', b'{"results": [1]}',
    ],
)  # fmt: skip
def test_an_answer_of_somebody_else_acknowledges_nothing(front: Front, body: bytes) -> None:
    with EventClient(front.url, "acme", retry=RetryPolicy(seconds=1, attempts=1)) as client:
        front.plan = [(200, {}, body)] * 2
        with pytest.raises(EventsUnavailable):
            client.send(events(1)[0])
        [sent] = client.send_many(events(1))
        assert (sent.status, sent.problem and sent.problem["status"]) == ("failed", 503)


def test_an_answer_without_end_is_not_read(front: Front) -> None:
    front.plan = [(200, {}, b" " * (9 << 20))]
    with EventClient(front.url, "acme") as client, pytest.raises(EventsUnavailable, match="more than"):
        client.send(events(1)[0])


def test_nobody_there_is_said_and_a_wrong_address_or_event_is_the_callers_mistake() -> None:
    nowhere = EventClient(
        "http://127.0.0.1:1", "acme", retry=RetryPolicy(attempts=2, first_pause_seconds=0.01)
    )
    with pytest.raises(EventsUnavailable, match="after 2 attempts, the last: ConnectError"):
        nowhere.send(events(1)[0])
    with pytest.raises(BadInput, match="no address"):
        EventClient("gateway:10080", "acme").send(events(1)[0])
    with pytest.raises(BadInput, match="tenant"):
        EventClient("http://127.0.0.1:1", "a\r\nb")
    for event, match in (
        (NewEvent("order", "1", "order.paid", {}, key="a\nb"), "key"),
        (NewEvent("order", "1", "order.paid", {"secret": float("nan")}), "payload/secret"),
        (NewEvent("order", "1", "order.paid", [1]), "payload"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(BadInput, match=match):
            nowhere.send(event)
    with pytest.raises(BadInput, match="all or nothing"):
        nowhere.send_many(events(251), atomic=True)


def test_tenant_and_trace_go_along(front: Front, database_url: str) -> None:
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracer = TracerProvider().get_tracer("test")
    with EventClient(front.url, "acme") as client, tracer.start_as_current_span("work") as span:
        client.send(events(1)[0])
        client.send_many([NewEvent("order", "1", "order.paid", {}, traceparent=own), *events(2)[1:]])
    current = f"{span.get_span_context().trace_id:032x}"
    assert {each["x-tenant-id"] for each in front.requests} == {"acme"}
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT split_part(traceparent, '-', 2) FROM outbox ORDER BY id").fetchall()
    assert [row[0] for row in rows] == [current, own.split("-")[1], current]
