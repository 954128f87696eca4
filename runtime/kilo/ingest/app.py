"""The HTTP application: ``POST /v1/events`` and ``POST /v1/events:batch``.

201 says that the event is new and committed, 200 that it was there with the same content; of a batch, 200
and a result for each event. Everything else is problem details (RFC 9457), and then nothing is stored, or
(503) nothing is known to be and the client asks again with the same keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY, Counter, Histogram
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kilo.contract import StackOutputs
from kilo.health import Health
from kilo.ingest.batch import reader_of
from kilo.ingest.batch_answer import answer
from kilo.ingest.commit import GroupCommit
from kilo.ingest.limits import AGAIN, BATCH_BYTES, READ_SECONDS, TRANSACTION_EVENTS, BodyBudget
from kilo.ingest.refusals import RefusalLog
from kilo.ingest.request import CheckedEvent, body_limit, check, known_tenant
from kilo.ingest.rows import Row
from kilo.ingest.store import EventStore, Result
from kilo.observe.metrics import INGEST_EVENTS, INGEST_REQUEST_DURATION, INGEST_REQUESTS
from kilo.observe.spans import span
from kilo.observe.tracing import parse_traceparent
from kilo.service import health_routes
from kilo.web.problem import Problem, refused
from kilo.web.tenants import combined

_log = logging.getLogger(__name__)
_requests = INGEST_REQUESTS.create(REGISTRY)
_durations = INGEST_REQUEST_DURATION.create(REGISTRY)
_events = INGEST_EVENTS.create(REGISTRY)

_STORE_SECONDS = 20.0
"""After which a request is answered whatever the database does; a commit may still come through."""
_PREPARED_AT_ONCE = 2
"""Large bodies whose events are read at once: their values take far more memory than their text."""
_LARGE_BYTES = 32 * 1024
"""A body from which on it is one of those."""
_BREATH = 50
"""Events of a batch after which others may run."""

T = TypeVar("T")
_Handle = Callable[[Request, Mapping[str, str], str], Awaitable[Response]]


def make_app(outputs: StackOutputs, store: EventStore, health: Health) -> Starlette:
    """Make the application."""
    entrance = _Entrance(outputs, store)

    async def not_found(_request: Request, error: Exception) -> Response:
        status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
        allowed = getattr(error, "headers", None)
        detail = "events are taken by POST /v1/events and POST /v1/events:batch"
        return Problem(status, detail, headers=allowed).response()

    return Starlette(
        routes=[
            Route("/v1/events", entrance.handler(entrance.post_event), methods=["POST"]),
            Route("/v1/events:batch", entrance.handler(entrance.post_batch), methods=["POST"]),
            *health_routes(health),
        ],
        exception_handlers={404: not_found, 405: not_found},
    )


# Looking a series up takes longer than counting; there are as many as tenants and statuses.
@cache
def _requests_of(tenant: str, status: int) -> Counter:
    return _requests.labels(tenant, str(status))


@cache
def _durations_of(tenant: str) -> Histogram:
    return _durations.labels(tenant)


@cache
def _events_of(tenant: str, outcome: str) -> Counter:
    return _events.labels(tenant, outcome)


class _Entrance:
    """The requests' handlers, and what they share."""

    def __init__(self, outputs: StackOutputs, store: EventStore) -> None:
        self._outputs = outputs
        self._store = store
        self._group = GroupCommit(store)
        self._budget = BodyBudget()
        self._refusals = RefusalLog()
        self._preparing = asyncio.Semaphore(_PREPARED_AT_ONCE)
        self._event_bytes = body_limit(outputs)

    def handler(self, handle: _Handle) -> Callable[[Request], Awaitable[Response]]:
        """What every request has: its tenant, an answer whatever happens, and metrics."""

        async def handler(request: Request) -> Response:
            started = time.perf_counter()
            tenant = "unknown"
            try:
                headers = combined(request.headers.items())
                tenant = known_tenant(headers, self._outputs)
                response = await handle(request, headers, tenant)
            except Problem as problem:
                self._refusals.note(tenant, problem)
                response = problem.response()
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                # The type only: a database's message can hold the row.
                _log.error("a request of %s failed: %s", tenant, type(error).__name__)
                detail = "nothing is known to be stored; try again with the same key"
                response = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()
            _requests_of(tenant, response.status_code).inc()
            _durations_of(tenant).observe(time.perf_counter() - started)
            return response

        return handler

    async def post_event(self, request: Request, headers: Mapping[str, str], tenant: str) -> Response:
        """``POST /v1/events``: one event."""
        with self._budget.held(tenant, _declared(headers, self._event_bytes)):
            body = await _read(request, self._event_bytes)
            async with AsyncExitStack() as reading:
                if len(body) > _LARGE_BYTES:
                    await reading.enter_async_context(self._preparing)
                checked = check(headers, body, self._outputs, tenant)
                fingerprint = checked.event.fingerprint
                attributes = {"kilo.tenant": tenant, "kilo.fingerprint": fingerprint}
                incoming = headers.get("traceparent")
                with span("POST /v1/events", incoming, kind=SpanKind.SERVER, attributes=attributes) as made:
                    row = await self._row(checked, made)
                    # What waits for its commit is its rows: the values go, and others may be read.
                    del body, checked
                    await reading.aclose()
                    result = await _bounded(self._group.store(row)) if isinstance(row, Row) else row
        if isinstance(result, Problem):
            raise result
        outcome = "accepted" if result else "duplicate"
        _events_of(tenant, outcome).inc()
        document = {"fingerprint": fingerprint, "status": outcome}
        return _json(document, HTTPStatus.CREATED if result else HTTPStatus.OK)

    async def post_batch(self, request: Request, headers: Mapping[str, str], tenant: str) -> Response:
        """``POST /v1/events:batch``: many events of one tenant."""
        read, key_name = reader_of(headers.get("content-type", ""))
        atomic = _flag(request, "atomic")
        limit = max(BATCH_BYTES, self._event_bytes)
        with self._budget.held(tenant, _declared(headers, limit)):
            body = await _read(request, limit)
            attributes = {"kilo.tenant": tenant}
            incoming = headers.get("traceparent")
            with span("POST /v1/events:batch", incoming, kind=SpanKind.SERVER, attributes=attributes) as made:
                rows: list[Row | Result] = []
                async with self._preparing:
                    for checked in read(body, tenant, self._outputs):
                        rows.append(await self._traced_row(checked, made))
                        if len(rows) % _BREATH == 0:
                            await asyncio.sleep(0)
                del body
                if atomic and len(rows) > TRANSACTION_EVENTS:
                    detail = f"{len(rows)} events; all or nothing takes at most {TRANSACTION_EVENTS}"
                    raise refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"pointer": "#", "detail": detail})
                results = await _bounded(self._stored(rows, atomic=atomic))
        for outcome, count in (
            ("accepted", sum(result is True for result in results)),
            ("duplicate", sum(result is False for result in results)),
        ):
            if count:
                _events_of(tenant, outcome).inc(count)
        if problem := next((each for each in results if isinstance(each, Problem)), None):
            self._refusals.note(tenant, problem)
        names = [row.fingerprint if isinstance(row, Row) else None for row in rows]
        status, document, more = answer(names, results, key_name, atomic=atomic)
        if status is HTTPStatus.OK:
            return _json(document, status)
        return Response(
            json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace"),
            status,
            more,
            "application/problem+json",
        )

    async def _traced_row(self, checked: CheckedEvent | Problem, made: str) -> Row | Result:
        if isinstance(checked, Problem):
            return checked
        own = parse_traceparent(checked.event.traceparent)
        return await self._row(checked, str(own.child()) if own else made)

    async def _row(self, checked: CheckedEvent, traceparent: str) -> Row | Result:
        """The event's rows; or what its answer is, when those are not needed or can't be made."""
        try:
            if checked.refused:
                if await self._store.is_stored(checked.event):
                    return False
                return refused(HTTPStatus.UNPROCESSABLE_ENTITY, *checked.refused)
            return await self._store.row_of(checked.event, traceparent)
        except Problem as problem:
            return problem

    async def _stored(self, rows: list[Row | Result], *, atomic: bool) -> list[Result]:
        """What became of each, in their order."""
        numbers = [number for number, row in enumerate(rows) if isinstance(row, Row)]
        given = [row for row in rows if isinstance(row, Row)]
        results: list[Result | None] = [None if isinstance(row, Row) else row for row in rows]
        if atomic and any(isinstance(row, Problem) for row in rows):
            other = Problem(HTTPStatus.FAILED_DEPENDENCY, "another event of the request is refused")
            stored: list[Result] = [other] * len(given)
        elif not given:
            stored = []
        else:
            stored = await (self._store.store_all(given) if atomic else self._store.store_each(given))
        for number, result in zip(numbers, stored, strict=True):
            results[number] = result
        return [False if result is None else result for result in results]


async def _bounded(storing: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            return await storing
    except TimeoutError:
        msg = "the database is too slow; nothing is known to be stored, try again with the same key"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN) from None


def _json(document: Mapping[str, Any], status: HTTPStatus) -> Response:
    return Response(json.dumps(document).encode(), status.value, media_type="application/json")


def _flag(request: Request, name: str) -> bool:
    """The one query parameter that there may be.

    Raises:
        Problem: it is neither true nor false, or there are others.
    """
    given = request.query_params.multi_items()
    if not given:
        return False
    if len(given) == 1 and given[0][0] == name and given[0][1] in {"true", "false"}:
        return given[0][1] == "true"
    detail = f"the query is ?{name}=true, ?{name}=false or none"
    raise Problem(HTTPStatus.BAD_REQUEST, detail)


def _declared(headers: Mapping[str, str], limit: int) -> int:
    """The body's size as the request says, or the most that it may be.

    Raises:
        Problem: it is too large.
    """
    declared = headers.get("content-length", "")
    if not declared.isascii() or not declared.isdecimal():
        return limit
    digits = declared.lstrip("0") or "0"
    if len(digits) > len(str(limit)) or int(digits) > limit:
        raise _too_large(limit)
    return int(digits)


async def _read(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is known to be too large or too slow."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        detail = f"the body was not there within {READ_SECONDS:.0f} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail) from None
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    # The connection stays open: closed under a body that is still being sent, the gateway would take this
    # answer for a failure, say 503 and try again.
    error = {"pointer": "#", "detail": f"more than {limit} bytes"}
    return refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error)
