"""The HTTP application: ``POST /v1/events``.

201 says that the event is new and committed, 200 that it was there with the same content. Everything else
is problem details, and then nothing is stored, or (503) the client asks again with the same key.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kilo.contract import StackOutputs
from kilo.ingest.problem import Problem, refused
from kilo.ingest.request import body_limit, check, known_tenant
from kilo.ingest.store import EventStore
from kilo.observe.metrics import INGEST_EVENTS, INGEST_REQUEST_DURATION, INGEST_REQUESTS
from kilo.observe.spans import span
from kilo.service import Health, health_routes

_log = logging.getLogger(__name__)
_requests = INGEST_REQUESTS.create(REGISTRY)
_durations = INGEST_REQUEST_DURATION.create(REGISTRY)
_events = INGEST_EVENTS.create(REGISTRY)


def make_app(outputs: StackOutputs, store: EventStore, health: Health) -> Starlette:
    """Make the application."""
    limit = body_limit(outputs)

    async def post_event(request: Request) -> Response:
        started = time.perf_counter()
        tenant = "unknown"
        try:
            headers = _combined(request.headers)
            tenant = known_tenant(headers, outputs)
            event = check(headers, await _read(request, limit), outputs)
            attributes = {"kilo.tenant": tenant, "kilo.fingerprint": event.fingerprint}
            incoming = headers.get("traceparent")
            with span("POST /v1/events", incoming, kind=SpanKind.SERVER, attributes=attributes) as made:
                new = await store.store(replace(event, traceparent=made))
        except Problem as problem:
            response = problem.response()
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            # The type only: a database's message can hold the row.
            _log.exception("an event of %s failed", tenant, exc_info=False)
            response = Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "nothing is known to be stored; try again with the same key",
            ).response()
        else:
            _events.labels(tenant, "accepted" if new else "duplicate").inc()
            response = _acknowledge(event.fingerprint, new=new)
        _requests.labels(tenant, str(response.status_code)).inc()
        _durations.labels(tenant).observe(time.perf_counter() - started)
        return response

    async def not_found(_request: Request, error: Exception) -> Response:
        status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
        allowed = getattr(error, "headers", None)
        return Problem(status, "events are taken by POST /v1/events", headers=allowed).response()

    return Starlette(
        routes=[Route("/v1/events", post_event, methods=["POST"]), *health_routes(health)],
        exception_handlers={404: not_found, 405: not_found},
    )


def _acknowledge(fingerprint: str, *, new: bool) -> Response:
    body = {"fingerprint": fingerprint, "status": "accepted" if new else "duplicate"}
    return Response(json.dumps(body).encode(), 201 if new else 200, media_type="application/json")


def _combined(headers: Headers) -> dict[str, str]:
    """Values by lower-case name; of a name that stands twice both, as RFC 9110, section 5.3, joins them.

    So two keys, or two tenants, are one value that nothing accepts.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


async def _read(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    error: dict[str, Any] = {"pointer": "#", "detail": f"more than {limit} bytes"}
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error)
        parts.append(part)
    return b"".join(parts)
