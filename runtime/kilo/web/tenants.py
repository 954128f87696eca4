"""Each request's tenant and trace, its metrics, and problem details for whatever goes wrong.

The gateway verifies who asks and puts the tenant into a header that clients cannot set. Here it is held
against the stage's tenants, so that a request which came past the gateway with an invented tenant is refused
too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Container, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY

from kilo.context import acting_for
from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.observe.metrics import SERVICE_REQUEST_DURATION, SERVICE_REQUESTS
from kilo.observe.spans import span
from kilo.web.problem import Problem, refused

_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI 3 application: https://asgi.readthedocs.io/en/latest/specs/main.html"""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_requests = SERVICE_REQUESTS.create(REGISTRY)
_durations = SERVICE_REQUEST_DURATION.create(REGISTRY)


def for_tenants(app: AsgiApp, outputs: StackOutputs, *, name: str) -> AsgiApp:
    """``app`` behind a check of the tenant, with the request's context, metrics and errors.

    Args:
        app: any ASGI application.
        outputs: the stage's; of them the tenants and the gateway's header are used.
        name: the service's, for spans and metrics.

    Inside, :func:`kilo.context.current_tenant` is the request's tenant. A :class:`~kilo.web.problem.Problem`
    that reaches the edge is answered as such, a :class:`~kilo.errors.BadInput` with 422 and its message, and
    anything else with 500 and its type in the log, without its message, which can hold what a client sent.
    """
    header = outputs.gateway.tenant_header.lower()
    known = frozenset(outputs.tenants)

    async def wrapped(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(send)
        tenant, broken = "unknown", False
        method = scope["method"] if scope["method"] in _METHODS else "other"
        try:
            headers = combined(
                (each.decode("latin-1"), value.decode("latin-1")) for each, value in scope["headers"]
            )
            tenant = verified_tenant(headers.get(header, ""), header, known)
            attributes = {"kilo.tenant": tenant}
            incoming = headers.get("traceparent")
            with (
                span(f"{name} {method}", incoming, kind=SpanKind.SERVER, attributes=attributes) as made,
                acting_for(tenant, made),
            ):
                await app(scope, receive, exchange.send)
            await exchange.release()
        except Exception as error:
            problem = _problem(error, name, tenant)
            broken = not await exchange.answer_instead(problem, scope, receive)
        finally:
            status = str(exchange.status or 499)
            _requests.labels(name, tenant, method, status).inc()
            _durations.labels(name, tenant).observe(time.perf_counter() - started)
        if broken:
            # Outside of the handler: what failed can hold what a client sent, and the server logs it.
            raise HalfAnswer

    return wrapped


class HalfAnswer(Exception):
    """The application failed in the middle of an answer; the server closes the connection."""


class _Exchange:
    """The answer as the application sends it.

    A framework answers 500 in plain text and then raises what failed; so a 500 is held back until it is known
    whether something is raised, and can become a problem.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass ``message`` on, or hold it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                self._held.append(message)
                return
        if self._held and not message.get("more_body", False):
            self._held.append(message)
            return
        await self.release()
        await self._send(message)

    async def release(self) -> None:
        """Send what was held."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)

    async def answer_instead(
        self, problem: Problem, scope: MutableMapping[str, Any], receive: Receive
    ) -> bool:
        """Answer with ``problem``; false when an answer has left already."""
        if self.status and not self._held:
            return False
        self._held.clear()
        self.status = problem.status.value
        await problem.response()(scope, receive, self._send)
        return True


def combined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Values by name; of a name that stands twice both, as RFC 9110, section 5.3, joins them.

    So two keys, or two tenants, are one value that nothing accepts.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def verified_tenant(given: str, header: str, known: Container[str]) -> str:
    """``given``, which a request's ``header`` names, when it is among the ``known`` tenants.

    Raises:
        Problem: it is empty (400) or unknown (403).
    """
    if not given:
        raise refused(HTTPStatus.BAD_REQUEST, {"header": header, "detail": "missing; it names the tenant"})
    if given not in known:
        raise refused(HTTPStatus.FORBIDDEN, {"header": header, "detail": f"tenant {given[:80]!r} is unknown"})
    return given


def _problem(error: Exception, name: str, tenant: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, BadInput):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    _log.error("%s: a request of %s failed: %s", name, tenant, type(error).__name__)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says where")
