"""The clients over httpx, for threads and for asyncio; what they do lies in :mod:`kilo.client.delivery`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import httpx
from opentelemetry import trace

from kilo.client.delivery import NOTHING, Answer, Delivery, RepeatBudget, Request, RetryPolicy, Steps
from kilo.client.events import ATOMIC_EVENTS, EventsUnavailable, NewEvent, Sent, batches, body_of, line_of
from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.observe.tracing import parse_traceparent

Token = str | Callable[[], str]
_TIMEOUT = httpx.Timeout(10.0)
_ANSWER_BYTES = 8 << 20
"""That are read of an answer: a result of each of a thousand events takes a tenth of it."""


class _Calls:
    """What both clients have: their requests."""

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        tenant_header: str = "x-tenant-id",
        token: Token | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", tenant):
            msg = "tenant: a DNS label of at most 40 characters"
            raise BadInput(msg)
        self._base = url.rstrip("/")
        # Not compressed: what is read is bounded, and must not grow here.
        self._headers = {tenant_header: tenant, "accept-encoding": "identity"}
        self._token = token
        self._retry = retry or RetryPolicy()
        self._budget = RepeatBudget()

    def _sent_with(self, request: Request) -> dict[str, str]:
        """Headers of one try; a token may have been renewed since the last."""
        token = self._token() if callable(self._token) else self._token
        return {**request.headers, **({"authorization": f"Bearer {token}"} if token else {})}

    def _one(self, event: NewEvent) -> Steps:
        headers = {
            **self._headers,
            "content-type": "application/json",
            "idempotency-key": event.key,
            **_trace(event.traceparent),
        }
        request = Request("/v1/events", headers, body_of(event))
        return Delivery(self._retry, self._budget).one(request, event.key)

    def _parts(self, events: Iterable[NewEvent], *, atomic: bool) -> list[tuple[list[str], Sequence[bytes]]]:
        # The request is of the current span, and so is an event that says nothing else.
        given = list(events)
        parts: list[tuple[list[str], Sequence[bytes]]] = []
        start = 0
        for lines in batches([line_of(each) for each in given]):
            parts.append(([each.key for each in given[start : start + len(lines)]], lines))
            start += len(lines)
        if atomic and (len(parts) > 1 or len(given) > ATOMIC_EVENTS):
            msg = (
                f"{len(given)} events are too many or too large for all or nothing: {ATOMIC_EVENTS} and 1 MB"
            )
            raise BadInput(msg)
        return parts

    def _many(self, keys: Sequence[str], lines: Sequence[bytes], *, atomic: bool) -> Steps:
        headers = {**self._headers, "content-type": "application/x-ndjson", **_trace(None)}
        request = Request(f"/v1/events:batch{'?atomic=true' if atomic else ''}", headers, b"")
        return Delivery(self._retry, self._budget).many(request, keys, lines, atomic=atomic)


class EventClient(_Calls):
    """Sends one tenant's events; a context manager. Threads may share it.

    Args:
        url: the gateway's.
        tenant: whose events these are.
        tenant_header: the header that names the tenant.
        token: what proves it where the gateway verifies tokens; or what gives one, asked at each try.
        retry: how requests are repeated.
        http: a client of one's own, which stays open.
    """

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        tenant_header: str = "x-tenant-id",
        token: Token | None = None,
        retry: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(url, tenant, tenant_header=tenant_header, token=token, retry=retry)
        self._http, self._owns = http or httpx.Client(timeout=_TIMEOUT), http is None

    @classmethod
    def from_outputs(cls, outputs: StackOutputs, tenant: str, **more: Any) -> Self:
        """A client of a stage's gateway."""
        gateway = outputs.gateway
        return cls(gateway.url, tenant, tenant_header=gateway.tenant_header, **more)

    def send(self, event: NewEvent) -> Sent:
        """Send one event; when this returns, it is committed.

        Raises:
            EventRefused: the platform refuses it; its ``problem`` says where.
            EventsUnavailable: it was not acknowledged in time; send it again with its key.
            BadInput: it can't be sent.
        """
        return self._run(self._one(event))

    def send_many(self, events: Iterable[NewEvent], *, atomic: bool = False) -> list[Sent]:
        """Send many events, in as many requests as they need; returns what became of each, in their order.

        Args:
            events: of one aggregate and id in the order in which they happened.
            atomic: store all or none; they are at most 250 and 1 MB.

        Raises:
            EventRefused: the platform refuses a request as a whole. Requests before it are acknowledged;
                sending all of it again is safe.
            BadInput: one of them can't be sent; none was.
        """
        results: list[Sent] = []
        for keys, lines in self._parts(events, atomic=atomic):
            results += self._run(self._many(keys, lines, atomic=atomic))
        return results

    def close(self) -> None:
        """Close the connections."""
        if self._owns:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps) -> Any:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Request):
                    step = steps.send(self._exchange(step))
                else:
                    time.sleep(step)
                    step = steps.send(NOTHING)
        except StopIteration as done:
            return done.value

    def _exchange(self, request: Request) -> Answer:
        try:
            with self._http.stream(
                "POST", self._base + request.path, content=request.body, headers=self._sent_with(request)
            ) as response:
                body = b""
                for piece in response.iter_raw():
                    body += piece
                    _check_size(body)
                return Answer(response.status_code, response.headers.get("retry-after", ""), body)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise _never_sent(self._base, error) from None
        except httpx.RequestError as error:
            return Answer(0, error=type(error).__name__)


class AsyncEventClient(_Calls):
    """As :class:`EventClient`, for asyncio; tasks may share it."""

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        tenant_header: str = "x-tenant-id",
        token: Token | None = None,
        retry: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, tenant, tenant_header=tenant_header, token=token, retry=retry)
        self._http, self._owns = http or httpx.AsyncClient(timeout=_TIMEOUT), http is None

    @classmethod
    def from_outputs(cls, outputs: StackOutputs, tenant: str, **more: Any) -> Self:
        """A client of a stage's gateway."""
        gateway = outputs.gateway
        return cls(gateway.url, tenant, tenant_header=gateway.tenant_header, **more)

    async def send(self, event: NewEvent) -> Sent:
        """See :meth:`EventClient.send`."""
        return await self._run(self._one(event))

    async def send_many(self, events: Iterable[NewEvent], *, atomic: bool = False) -> list[Sent]:
        """See :meth:`EventClient.send_many`."""
        results: list[Sent] = []
        for keys, lines in self._parts(events, atomic=atomic):
            results += await self._run(self._many(keys, lines, atomic=atomic))
        return results

    async def close(self) -> None:
        """Close the connections."""
        if self._owns:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Steps) -> Any:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Request):
                    step = steps.send(await self._exchange(step))
                else:
                    await asyncio.sleep(step)
                    step = steps.send(NOTHING)
        except StopIteration as done:
            return done.value

    async def _exchange(self, request: Request) -> Answer:
        try:
            async with self._http.stream(
                "POST", self._base + request.path, content=request.body, headers=self._sent_with(request)
            ) as response:
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    _check_size(body)
                return Answer(response.status_code, response.headers.get("retry-after", ""), body)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise _never_sent(self._base, error) from None
        except httpx.RequestError as error:
            return Answer(0, error=type(error).__name__)


def _never_sent(base: str, error: Exception) -> BadInput:
    return BadInput(f"{base}: is no address that events can be sent to ({type(error).__name__})")


def _check_size(body: bytes) -> None:
    if len(body) > _ANSWER_BYTES:
        msg = f"the answer has more than {_ANSWER_BYTES} bytes; is the address right?"
        raise EventsUnavailable(msg)


def _trace(given: str | None) -> dict[str, str]:
    """The header of ``given``, or of the span that runs now, if one does."""
    context = trace.get_current_span().get_span_context()
    if given is None and context.is_valid:
        flags = int(context.trace_flags.sampled)
        given = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
    return {"traceparent": given} if given and parse_traceparent(given) else {}
