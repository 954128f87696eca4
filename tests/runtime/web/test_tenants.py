"""A request's tenant: verified, in the context, in what it writes; and what a client learns of failures."""

from __future__ import annotations

import asyncio

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from kilo.context import NoTenant, acting_for, context_headers, current_tenant, current_traceparent
from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.outbox import Event, enqueue
from kilo.testing.outputs import make_outputs
from kilo.web import for_tenants
from kilo.web.tenants import HalfAnswer

SECRET = "ana.secret@example.com"
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture(scope="module")
def outputs() -> StackOutputs:
    return make_outputs("postgresql://localhost/none", "nats://localhost")


async def who(_request: Request) -> Response:
    await asyncio.sleep(0)
    return JSONResponse({"tenant": current_tenant(), "trace": current_traceparent()})


async def fails(_request: Request) -> Response:
    raise RuntimeError(SECRET)


async def refuses(_request: Request) -> Response:
    msg = "total: below zero; give a positive number"
    raise BadInput(msg)


async def breaks_off(_request: Request) -> Response:
    async def body() -> object:
        yield b"half"
        raise RuntimeError(SECRET)

    return StreamingResponse(body())  # pyright: ignore[reportArgumentType] - an async generator is one


def client(outputs: StackOutputs) -> httpx.AsyncClient:
    app = Starlette(
        routes=[
            Route("/who", who),
            Route("/fails", fails),
            Route("/refuses", refuses),
            Route("/breaks-off", breaks_off),
        ]
    )
    transport = httpx.ASGITransport(for_tenants(app, outputs, name="orders"), raise_app_exceptions=True)  # pyright: ignore[reportArgumentType]
    return httpx.AsyncClient(transport=transport, base_url="http://service")


async def test_a_request_acts_for_its_tenant_and_no_other_that_runs_beside_it(outputs: StackOutputs) -> None:
    async with client(outputs) as http:
        given = ["acme", "globex"] * 20
        answers = await asyncio.gather(*(http.get("/who", headers={"x-tenant-id": each}) for each in given))
    assert [each.json()["tenant"] for each in answers] == given


async def test_its_trace_goes_on_as_a_child(outputs: StackOutputs) -> None:
    async with client(outputs) as http:
        answer = await http.get("/who", headers={"x-tenant-id": "acme", "traceparent": TRACE})
    assert answer.json()["trace"].split("-")[1] == "a" * 32
    assert answer.json()["trace"] != TRACE


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ([], 400, "missing"),
        ([("x-tenant-id", "nobody")], 403, "unknown"),
        ([("x-tenant-id", "acme"), ("x-tenant-id", "globex")], 403, "unknown"),
        ([("x-tenant-id", "ACME")], 403, "unknown"),
    ],
)
async def test_an_unknown_or_double_tenant_is_refused_before_the_application(
    outputs: StackOutputs, headers: list[tuple[str, str]], status: int, word: str
) -> None:
    async with client(outputs) as http:
        answer = await http.get("/fails", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


async def test_a_failure_is_answered_without_what_it_said(
    outputs: StackOutputs, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(outputs) as http:
        answer = await http.get("/fails", headers={"x-tenant-id": "acme"})
    assert answer.status_code == 500
    assert SECRET not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text


async def test_bad_input_is_said_with_its_place(outputs: StackOutputs) -> None:
    async with client(outputs) as http:
        answer = await http.get("/refuses", headers={"x-tenant-id": "acme"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "total: below zero; give a positive number")


async def test_half_an_answer_is_never_made_to_look_whole(outputs: StackOutputs) -> None:
    async with client(outputs) as http:
        with pytest.raises(HalfAnswer) as failed:
            await http.get("/breaks-off", headers={"x-tenant-id": "acme"})
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None


def test_outside_of_a_request_there_is_no_tenant() -> None:
    with pytest.raises(NoTenant, match="acting_for"):
        current_tenant()
    assert context_headers() == {}
    with acting_for("acme", TRACE):
        with acting_for("globex"):
            assert context_headers() == {"x-tenant-id": "globex"}
        assert context_headers() == {"x-tenant-id": "acme", "traceparent": TRACE}


def test_an_event_belongs_to_the_trace_of_its_request(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, acting_for("acme", TRACE):
        enqueue(connection, Event(current_tenant(), "order", "1", "order.placed", {}))
        enqueue(connection, Event(current_tenant(), "order", "2", "order.placed", {}, traceparent=None))
        rows = connection.execute("SELECT DISTINCT traceparent FROM outbox").fetchall()
    assert rows == [(TRACE,)]
