"""HTTP to one registry: logins, retries, pauses, and a limit on requests at once.

429 and 5xx are retried, as are broken connections, after what Retry-After says or else after a
back-off that doubles. A 429 pauses every request to that registry, not just the one it answered. Every
wait has a floor and a ceiling, whatever the registry asks for, and all patience with one request
together stays below the mirror's five-minute goal. A body is read up to a limit and a deadline.

On urllib3 rather than httpx: it costs two thirds of the client CPU a request and a byte, and a
copy's speed on a small machine is its CPU. Redirects to another host lose the Authorization header,
as a blob's redirect to an object store must.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, ProtocolError

from kilo.registry.authorization import Authorizations, Scope, TokenServiceError
from kilo.registry.errors import AccessDenied, RegistryDown, Unreadable
from kilo.registry.headers import content_length, retry_after_seconds
from kilo.registry.parsing import printable

__all__ = ["Answer", "Scope", "TokenServiceError", "Transport", "back_off_seconds"]

PATIENCE_SECONDS = 240.0
CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 60.0
BODY_LIMIT_BYTES = 4 * 1024 * 1024
LONGEST_PAUSE_SECONDS = 120.0
"""However long a registry asks not to be asked again."""

_TOKEN_LIMIT_BYTES = 1024 * 1024
_FIRST_BACK_OFF_SECONDS = 0.5
_LONGEST_BACK_OFF_SECONDS = 20.0
_READ_BYTES = 256 * 1024
_WORTH_RETRYING = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Transport:
    """Requests to one registry.

    Thread-safe. ``connections`` bounds how many requests are under way at once, whichever thread
    they come from; ``patience_seconds`` bounds the retries of one request.
    """

    def __init__(
        self, host: str, base_url: str, *, connections: int = 8, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.host = host
        self.base_url = base_url
        self.patience_seconds = patience_seconds
        self._pool = urllib3.PoolManager(
            num_pools=4,
            maxsize=connections,
            block=False,
            retries=urllib3.Retry(
                total=None, connect=0, read=0, status=0, other=0, redirect=5, respect_retry_after_header=False
            ),
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            headers={"User-Agent": "kilo"},
        )
        self.authorizations = Authorizations(host, base_url, self._fetch, _WORTH_RETRYING.__contains__)
        self._slots = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self.requests_sent = 0

    def url(self, location: str) -> str:
        """Make ``location``, a path or a whole URL of a Location header, absolute."""
        return urljoin(self.base_url, location)

    def request(
        self,
        method: str,
        location: str,
        scope: Scope,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit_bytes: int = BODY_LIMIT_BYTES,
    ) -> Answer:
        """Send a request until it is answered for good, and return the answer whatever its status.

        Raises:
            RegistryDown: no final answer within the patience.
            AccessDenied: 401 or 403 with the best login there is.
            Unreadable: the answer's body is larger than ``limit_bytes``.
        """
        deadline = time.monotonic() + self.patience_seconds
        for attempt in itertools.count():
            self._wait_while_paused(deadline)
            try:
                answer = self.send(
                    method, location, scope, headers=headers, body=body, limit_bytes=limit_bytes
                )
            except HTTPError as error:
                trouble, asked_to_wait = _reason(error), None
            else:
                if answer.status not in _WORTH_RETRYING:
                    return answer
                trouble, asked_to_wait = self._trouble(answer)
            self._back_off(attempt, deadline, asked_to_wait, f"{method} {self._path(location)}: {trouble}")
        raise AssertionError

    def open(
        self, location: str, scope: Scope, *, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse | Answer:
        """Send a GET as :meth:`request` does; an answer of 200 or 206 has its body left to be read.

        Such an answer is a response of urllib3, to be read and released by the caller.
        """
        deadline = time.monotonic() + self.patience_seconds
        for attempt in itertools.count():
            self._wait_while_paused(deadline)
            try:
                with self._slots:
                    response = self._authorized("GET", location, scope, headers, None)
                    if response.status in {200, 206}:
                        return response
                    answer = _whole(response, BODY_LIMIT_BYTES, self._place(location))
            except HTTPError as error:
                trouble, asked_to_wait = _reason(error), None
            else:
                if answer.status not in _WORTH_RETRYING:
                    return answer
                trouble, asked_to_wait = self._trouble(answer)
            self._back_off(attempt, deadline, asked_to_wait, f"GET {self._path(location)}: {trouble}")
        raise AssertionError

    def send(
        self,
        method: str,
        location: str,
        scope: Scope,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        limit_bytes: int = BODY_LIMIT_BYTES,
    ) -> Answer:
        """Send a request once, logging in where the registry asks for it.

        A body that is not bytes can be sent once only: a 401 to it, which is what a token that ran
        out in the middle of a long upload gets, renews the login and is answered as it is.

        Raises:
            HTTPError: the connection failed, or the token service is in trouble.
            AccessDenied: 401 or 403 with the best login there is.
            Unreadable: the answer's body is larger than ``limit_bytes``.
        """
        with self._slots:
            response = self._authorized(method, location, scope, headers, body)
            return _whole(response, limit_bytes, self._place(location))

    def _authorized(
        self,
        method: str,
        location: str,
        scope: Scope,
        headers: Mapping[str, str] | None,
        body: bytes | Iterable[bytes] | None,
    ) -> urllib3.BaseHTTPResponse:
        url = self.url(location)
        own = urlsplit(url)[:2] == urlsplit(self.base_url)[:2]
        replayable = body is None or isinstance(body, bytes)
        for last in (False, True):
            used = self.authorizations.get(scope) if own else None
            sent = dict(headers or {}) | ({"Authorization": used} if used else {})
            response = self._exchange(method, url, sent, body)
            if response.status not in {401, 403}:
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            detail = _error_detail(_whole(response, BODY_LIMIT_BYTES, self._place(location)).data)
            if response.status == 403 or last or not own:
                msg = f"{self.host}: {scope}: access denied (HTTP {response.status}{detail})"
                raise AccessDenied(msg)
            self.authorizations.renew(scope, challenge, used)
            if not replayable:
                return response
        raise AssertionError

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None
    ) -> urllib3.BaseHTTPResponse:
        self.requests_sent += 1
        try:
            return self._pool.request(
                method,
                url,
                headers=headers,
                body=body,
                preload_content=False,
                decode_content=False,
                chunked=False,
            )
        except HTTPError:
            raise
        except ValueError as error:
            # What urllib3 and http.client say of a status line or Location that they can't read.
            msg = f"{type(error).__name__} in the answer's head"
            raise ProtocolError(msg) from error

    def _fetch(self, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        answer = _whole(self._exchange("GET", url, headers, None), _TOKEN_LIMIT_BYTES, f"{self.host}: token")
        return answer.status, answer.data

    def _trouble(self, answer: Answer) -> tuple[str, float | None]:
        asked_to_wait = retry_after_seconds(answer.headers.get("Retry-After"))
        if answer.status == 429:
            self._pause(max(asked_to_wait or 0.0, _FIRST_BACK_OFF_SECONDS))
        return f"HTTP {answer.status}", asked_to_wait

    def _back_off(self, attempt: int, deadline: float, asked_to_wait: float | None, trouble: str) -> None:
        delay = max(back_off_seconds(attempt), min(asked_to_wait or 0.0, LONGEST_PAUSE_SECONDS))
        if time.monotonic() + delay >= deadline:
            msg = f"{self.host}: {trouble}, for {attempt + 1} attempts"
            raise RegistryDown(msg)
        time.sleep(delay)

    def _pause(self, seconds: float) -> None:
        with self._lock:
            until = time.monotonic() + min(seconds, LONGEST_PAUSE_SECONDS)
            self._paused_until = max(self._paused_until, until)

    def _wait_while_paused(self, deadline: float) -> None:
        remaining = self._paused_until - time.monotonic()
        if remaining > 0:
            if self._paused_until >= deadline:
                msg = f"{self.host}: rate limited for another {remaining:.0f} s"
                raise RegistryDown(msg)
            time.sleep(remaining)

    def _path(self, location: str) -> str:
        return printable(urlsplit(self.url(location)).path)

    def _place(self, location: str) -> str:
        return f"{self.host}{self._path(location)}"


def back_off_seconds(attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th failure, counted from 0; with jitter."""
    longest = min(_LONGEST_BACK_OFF_SECONDS, _FIRST_BACK_OFF_SECONDS * 2 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def _whole(response: urllib3.BaseHTTPResponse, limit_bytes: int, place: str) -> Answer:
    """Read the body, no further than ``limit_bytes`` and no longer than a request may take."""
    try:
        body = _read_body(response, limit_bytes, place)
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return Answer(response.status, response.headers, body)


def _read_body(response: urllib3.BaseHTTPResponse, limit_bytes: int, place: str) -> bytes:
    deadline = time.monotonic() + READ_TIMEOUT_SECONDS
    pieces: list[bytes] = []
    declared = content_length(response.headers.get("Content-Length"), place)
    size = declared if declared and declared > limit_bytes and response.length_remaining else 0
    while size <= limit_bytes and (piece := response.read1(_READ_BYTES)):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            msg = f"{size} bytes of the body in {READ_TIMEOUT_SECONDS:.0f} s"
            raise ProtocolError(msg)
    if size > limit_bytes:
        msg = f"{place}: an answer of {size} bytes or more; at most {limit_bytes} are read"
        raise Unreadable(msg)
    return b"".join(pieces)


def _reason(error: HTTPError) -> str:
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, NameResolutionError):
        return "no address is known for that name"
    return str(cause) if isinstance(cause, TokenServiceError) else type(cause).__name__


def _error_detail(body: bytes) -> str:
    try:
        first = json.loads(body)["errors"][0]
        return f", {printable(str(first['code']))}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
