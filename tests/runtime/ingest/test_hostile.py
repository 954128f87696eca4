"""Whatever headers and bodies come, the answer is a problem or an acknowledgement, and never a 500."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from kilo.health import Health
from kilo.http_protocol import HEAD_LIMIT_BYTES
from kilo.ingest.app import make_app
from kilo.ingest.limits import BodyBudget
from kilo.ingest.store import EventStore
from kilo.service import server
from kilo.web.problem import Problem
from tests.events import make_outputs
from tests.runtime.consumer.support import Plain

FUZZ = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = {"aggregate": "order", "aggregate_id": "1", "kind": "order.paid", "payload": {"n": 1}}
Call = Callable[[str, list[tuple[bytes, bytes]], bytes, bytes], tuple[int, bytes, bytes]]

HEADER_BYTES = st.binary(max_size=12) | st.sampled_from(
    [b"acme", b"globex", b"k1", b'"k1"', b"\xb2", b"9" * 5000, b"-1", b"1e3", b"\x00", b"\xff\xfe", b""]
)
HEADER_NAMES = st.sampled_from(
    [b"x-tenant-id", b"idempotency-key", b"content-length", b"content-type", b"traceparent", b"tracestate"]
) | st.binary(min_size=1, max_size=8)
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_BYTES), max_size=8)

_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["\ud800", "\x00", "a" * 300, "order", "order/1", "1.0", 10**50])
)  # fmt: skip
_NAMES = (
    st.sampled_from([*GOOD, "key", "specversion", "id", "source", "type", "subject", "data", "\ud800"])
    | st.text(max_size=4)
)  # fmt: skip
DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=15,
)


def nearly(document: Any) -> bytes:
    """JSON as a careless client writes it: with NaN, half surrogate pairs and all."""
    return json.dumps(document).encode()


BODIES = (
    st.binary(max_size=40)
    | DOCUMENTS.map(nearly)
    | st.dictionaries(_NAMES, DOCUMENTS, max_size=3).map(lambda more: nearly({**GOOD, **more}))
    | st.sampled_from(
        [b"[" * 5000, b'{"a":' * 5000, b'{"\\ud800":1,"\\ud800":1}', b"1" * 5000, b'{"a":1e9999}']
    )
    | st.lists(st.integers(0, 399), min_size=1, max_size=300).map(
        lambda exponents: nearly(GOOD).replace(b"1}", b"[%b]}" % b",".join(b"1E+%d" % n for n in exponents))
    )
)


@pytest.fixture
def call(database_url: str) -> Iterator[Call]:
    """Call the application as a server does, with any bytes in the headers."""
    with asyncio.Runner() as runner:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            database_url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
        )
        runner.run(pool.open())
        app = make_app(make_outputs(), EventStore(pool, Plain()), Health())

        def made(
            path: str, headers: list[tuple[bytes, bytes]], query: bytes, body: bytes
        ) -> tuple[int, bytes, bytes]:
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": path,
                "query_string": query,
                "headers": [(name.lower(), value) for name, value in headers],
            }
            runner.run(app(scope, receive, send))
            kinds = dict(sent[0]["headers"])
            return sent[0]["status"], kinds[b"content-type"], sent[1]["body"]

        yield made
        runner.run(pool.close())


def check(answer: tuple[int, bytes, bytes]) -> None:
    status, kind, body = answer
    document = json.loads(body)
    assert status < 500, answer
    assert len(body) < 20_000
    if status in {200, 201}:
        assert kind == b"application/json"
        problems = [each["problem"] for each in document.get("results", ()) if "problem" in each]
        assert all(each["status"] < 500 for each in problems), problems
    else:
        assert (kind, document["status"]) == (b"application/problem+json", status)


@FUZZ
@example(headers=[(b"content-length", b"\xb2")], query=b"", path="/v1/events")
@example(headers=[(b"content-length", b"9" * 5000)], query=b"", path="/v1/events")
@given(headers=HEADERS, query=st.binary(max_size=8), path=st.sampled_from(["/v1/events", "/v1/events:batch"]))
def test_any_headers(call: Call, headers: list[tuple[bytes, bytes]], query: bytes, path: str) -> None:
    check(call(path, headers, query, nearly(GOOD)))
    known = [(name, value) for name, value in headers if name != b"x-tenant-id"]
    check(call(path, [*known, (b"x-tenant-id", b"acme")], query, nearly(GOOD)))


@FUZZ
@given(body=BODIES, tenant=st.sampled_from([b"acme", b"globex"]))
def test_any_body_of_an_event(call: Call, body: bytes, tenant: bytes) -> None:
    check(call("/v1/events", [(b"x-tenant-id", tenant), (b"idempotency-key", b"k")], b"", body))


@FUZZ
@given(
    bodies=st.lists(BODIES, max_size=5),
    media=st.sampled_from([b"application/x-ndjson", b"application/cloudevents-batch+json"]),
    query=st.sampled_from([b"", b"atomic=true"]),
)
def test_any_body_of_a_batch(call: Call, bodies: list[bytes], media: bytes, query: bytes) -> None:
    body = b"\n".join(bodies) if media.endswith(b"ndjson") else b"[" + b",".join(bodies) + b"]"
    check(call("/v1/events:batch", [(b"x-tenant-id", b"acme"), (b"content-type", media)], query, body))


def test_a_body_of_mistakes_does_not_become_a_larger_answer(call: Call) -> None:
    headers = [(b"x-tenant-id", b"acme"), (b"idempotency-key", b"k")]
    many = {**GOOD, **{f"name{n}": n for n in range(2000)}}
    status, _, body = call("/v1/events", headers, b"", nearly(many))
    assert (status, len(json.loads(body)["errors"])) == (422, 20)
    assert "and 1980 more" in json.loads(body)["detail"]


def test_numbers_that_grow_in_the_database_are_refused_and_hurt_no_other(call: Call) -> None:
    large = {**GOOD, "key": "large"}
    text = nearly(large).replace(b'"n": 1', b'"n": [%b]' % b",".join([b"1E+398"] * 8000))
    body = text + b"\n" + nearly({**GOOD, "key": "small"})
    headers = [(b"x-tenant-id", b"acme"), (b"content-type", b"application/x-ndjson")]
    status, _, answered = call("/v1/events:batch", headers, b"", body)
    first, second = json.loads(answered)["results"]
    assert (status, first["problem"]["status"], second["status"]) == (200, 422, "accepted")


def test_bytes_under_way_are_bounded_by_tenant_and_in_all() -> None:
    budget = BodyBudget(process_bytes=100, tenant_bytes=60)
    with budget.held("acme", 50):
        with pytest.raises(Problem) as over, budget.held("acme", 20):
            pass
        assert (over.value.status, over.value.headers) == (429, {"retry-after": "1"})
        with budget.held("globex", 50), pytest.raises(Problem) as full, budget.held("initech", 1):
            pass
        assert full.value.status == 503
    with budget.held("acme", 60):
        pass


@dataclass
class Wire:
    """The server as it listens."""

    port: int

    def talk(self, *chunks: bytes) -> bytes:
        """Send bytes and read until the server closes or answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            try:
                for chunk in chunks:
                    client.sendall(chunk)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            received = b""
            try:
                while piece := client.recv(65536):
                    received += piece
            except OSError:
                pass
            return received


@pytest.fixture
def wire(unused_port: int) -> Iterator[Wire]:
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool("postgresql://127.0.0.1:1/none", open=False)
    app = make_app(make_outputs(), EventStore(pool, Plain()), Health())
    made: uvicorn.Server = server(app, unused_port)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    for _ in range(200):
        try:
            httpx.get(f"http://127.0.0.1:{unused_port}/livez", timeout=1)
            break
        except httpx.TransportError:
            thread.join(0.05)
    yield Wire(unused_port)
    made.should_exit = True
    thread.join(10)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_no_http_is_a_problem_too(wire: Wire) -> None:
    for sent in (
        b"nonsense\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        answer = wire.talk(sent)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert b"application/problem+json" in answer


def test_a_head_without_end_is_refused(wire: Wire) -> None:
    chunk = b"x" * 32_768
    answer = wire.talk(
        b"POST /v1/events HTTP/1.1\r\nx-long: ", *[chunk] * (HEAD_LIMIT_BYTES // len(chunk) + 64)
    )
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert httpx.get(f"http://127.0.0.1:{wire.port}/livez", timeout=5).status_code == 200


def test_a_body_that_is_declared_too_large_is_not_read(wire: Wire) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-tenant-id: acme\r\ncontent-length: 999999999999\r\n\r\n"
    answer = wire.talk(head, b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
