"""Sending: until there is an answer, in order per aggregate, and never held up by another's trouble."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kilo.tour.events import Event
from kilo.tour.sender import CONCURRENCY, send_all

tried: Counter[str] = Counter()


async def take(request: Request) -> Response:
    key, tenant = request.headers["idempotency-key"], request.headers["x-tenant-id"]
    tried[key] += 1
    if tenant == "slow":
        await asyncio.sleep(0.4)
    if tenant == "broken":
        return JSONResponse({"title": "Service Unavailable", "detail": "no key"}, 503)
    if tenant == "wrong":
        return JSONResponse({"title": "Unprocessable Content", "detail": "kind: missing"}, 422)
    if tenant == "busy" and tried[key] == 1:
        return Response(status_code=429, headers={"retry-after": "0"})
    return JSONResponse({"fingerprint": f"{tenant}/{key}"}, 201)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    tried.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/v1/events", take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve([listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


def event(tenant: str, number: int) -> Event:
    body = {"aggregate": "order", "aggregate_id": str(number), "kind": "order.made", "payload": {}}
    return Event(tenant, f"{tenant}-{number}", json.dumps(body), f"event {number}")


async def test_a_refusal_is_an_answer_and_a_busy_server_is_asked_again(url: str) -> None:
    answers = await send_all(url, "x-tenant-id", [event("wrong", 1), event("busy", 2)], timeout_seconds=30)
    assert [answer.refusal for answer in answers] == ["422 Unprocessable Content: kind: missing", None]
    assert tried == {"wrong-1": 1, "busy-2": 2}


async def test_one_tenants_trouble_holds_up_no_other(url: str) -> None:
    broken = [event("broken", number) for number in range(4 * CONCURRENCY)]
    fine = [event("fine", number) for number in range(20)]
    answers = await send_all(url, "x-tenant-id", [*broken, *fine], timeout_seconds=3)
    assert all(answer.acknowledged for answer in answers[len(broken) :])
    assert {answer.refusal for answer in answers[: len(broken)]} == {"503 Service Unavailable: no key"}


async def test_many_events_may_take_longer_than_the_timeout_while_answers_come(url: str) -> None:
    body = json.dumps({"aggregate": "order", "aggregate_id": "1", "kind": "order.made", "payload": {}})
    events = [Event("slow", f"slow-{number}", body, f"event {number}") for number in range(6)]
    answers = await send_all(url, "x-tenant-id", events, timeout_seconds=2)
    assert all(answer.acknowledged for answer in answers)
