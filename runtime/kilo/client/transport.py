"""Transports for httpx that honour a gateway's hints, for whatever a service asks of another.

::

    http = httpx.Client(transport=RetryTransport(), base_url="https://api.example.com")

A request is repeated as the event clients repeat theirs (:mod:`kilo.client.delivery`): never before
Retry-After, each client at a moment of its own, within a time and a budget. Only what has no second effect
is repeated: idempotent methods (RFC 9110, section 9.2.2), and whatever carries an ``Idempotency-Key``. A
body that is a stream is sent once, since it can't be sent again.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from kilo.client.delivery import REPEATABLE, Pauses, RepeatBudget, RetryPolicy

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_UNSENT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
_LAST_STATUS_OF_SUCCESS = 399


class _Calls:
    """What both transports have: how they repeat, and the budget that their requests share."""

    def __init__(self, retry: RetryPolicy | None) -> None:
        self._retry = retry or RetryPolicy()
        self._budget = RepeatBudget()

    def _tries(self, request: httpx.Request) -> _Tries:
        return _Tries(request, self._retry, self._budget)


class _Tries:
    """One request's tries: after each, the pause before the next, or none where it was the last."""

    def __init__(self, request: httpx.Request, retry: RetryPolicy, budget: RepeatBudget) -> None:
        safe = request.method in _IDEMPOTENT or "idempotency-key" in request.headers
        self._left = retry.attempts if safe and isinstance(request.stream, httpx.ByteStream) else 1
        self._budget = budget
        self._pauses = Pauses(retry, budget)

    def failed(self) -> float | None:
        """There was no answer."""
        return self._pause("")

    def answered(self, response: httpx.Response) -> float | None:
        """There was one, which is the caller's where no pause comes back."""
        if response.status_code <= _LAST_STATUS_OF_SUCCESS:
            self._budget.earn()
        if response.status_code not in REPEATABLE:
            return None
        return self._pause(response.headers.get("retry-after", ""))

    def _pause(self, hint: str) -> float | None:
        self._left -= 1
        return self._pauses.next(hint) if self._left > 0 else None


class RetryTransport(_Calls, httpx.BaseTransport):
    """Repeats what may be repeated; the last answer or error is the caller's. Threads may share it.

    Args:
        transport: what sends the requests.
        retry: how they are repeated.
    """

    def __init__(
        self, transport: httpx.BaseTransport | None = None, retry: RetryPolicy | None = None
    ) -> None:
        super().__init__(retry)
        self._transport = transport or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See :class:`httpx.BaseTransport`."""
        tries = self._tries(request)
        while True:
            try:
                response = self._transport.handle_request(request)
            except _UNSENT:
                raise
            except httpx.TransportError:
                pause = tries.failed()
                if pause is None:
                    raise
            else:
                pause = tries.answered(response)
                if pause is None:
                    return response
                response.close()
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class AsyncRetryTransport(_Calls, httpx.AsyncBaseTransport):
    """As :class:`RetryTransport`, for asyncio; tasks may share it."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None = None, retry: RetryPolicy | None = None
    ) -> None:
        super().__init__(retry)
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See :class:`httpx.AsyncBaseTransport`."""
        tries = self._tries(request)
        while True:
            try:
                response = await self._transport.handle_async_request(request)
            except _UNSENT:
                raise
            except httpx.TransportError:
                pause = tries.failed()
                if pause is None:
                    raise
            else:
                pause = tries.answered(response)
                if pause is None:
                    return response
                await response.aclose()
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
