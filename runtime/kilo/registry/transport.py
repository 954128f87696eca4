"""HTTP to one registry: one connection pool, one login, and patience with a registry in trouble.

429, 500, 502, 503 and 504 and broken connections are tried again: after ``Retry-After`` where the
registry says so (RFC 9110, seconds or date), otherwise after a back-off that doubles from half a
second to 20 seconds, with jitter. A 429 pauses every request to that registry, not just the one it
answered. All patience with one request together stays below the mirror's five-minute goal.

On urllib3 rather than httpx: it costs two thirds of the client CPU a request and a byte, and a
copy's speed on a small machine is its CPU. Redirects to another host lose the Authorization header,
as a blob's redirect to an object store must.
"""

from __future__ import annotations

import email.utils
import itertools
import json
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError

from kilo.registry.credentials import Login, find_login
from kilo.registry.errors import AccessDenied, RegistryDown

PATIENCE_SECONDS = 240.0
CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 60.0

_FIRST_BACK_OFF_SECONDS = 0.5
_LONGEST_BACK_OFF_SECONDS = 20.0
_WORTH_RETRYING = frozenset({429, 500, 502, 503, 504})
_CHALLENGE_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is asked for (https://distribution.github.io/distribution/spec/auth/scope/)."""

    repository: str
    actions: str

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}" if self.repository else self.actions


class TokenServiceError(HTTPError):
    """The service that hands out a registry's tokens is in trouble; worth another try."""


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
        self._requests = itertools.count()
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
        self._slots = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._login_found = False
        self._login: Login | None = None
        self._authorizations: dict[Scope, str] = {}
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
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request until it is answered for good, and return the answer whatever its status.

        With ``stream`` the answer's body is left to be read and released by the caller.

        Raises:
            RegistryDown: no final answer within the patience.
            AccessDenied: 401 or 403 with the best login there is.
        """
        deadline = time.monotonic() + self.patience_seconds
        for attempt in itertools.count():
            self._wait_while_paused(deadline)
            try:
                response = self.send(method, location, scope, headers=headers, body=body, stream=stream)
            except HTTPError as error:
                trouble, asked_to_wait = _reason(error), None
            else:
                if response.status not in _WORTH_RETRYING:
                    return response
                asked_to_wait = retry_after_seconds(response.headers.get("Retry-After"))
                trouble = f"HTTP {response.status}"
                response.drain_conn()
                response.release_conn()
                if response.status == 429:
                    self._pause(asked_to_wait or _FIRST_BACK_OFF_SECONDS)
            delay = asked_to_wait if asked_to_wait is not None else back_off_seconds(attempt)
            if time.monotonic() + delay >= deadline:
                path = urlsplit(self.url(location)).path
                msg = f"{self.host}: {method} {path}: {trouble}, for {attempt + 1} attempts"
                raise RegistryDown(msg)
            time.sleep(delay)
        raise AssertionError

    def send(
        self,
        method: str,
        location: str,
        scope: Scope,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request once, logging in where the registry asks for it.

        A body that is not bytes can be sent once only: a 401 to it, which is what a token that ran
        out in the middle of a long upload gets, renews the login and is answered as it is.

        Raises:
            HTTPError: the connection failed, or the token service is in trouble.
            AccessDenied: 401 or 403 with the best login there is.
        """
        url = self.url(location)
        own = urlsplit(url)[:2] == urlsplit(self.base_url)[:2]
        replayable = body is None or isinstance(body, bytes)
        for last in (False, True):
            used = self._authorizations.get(scope) if own else None
            sent = dict(headers or {}) | ({"Authorization": used} if used else {})
            with self._slots:
                self.requests_sent += 1
                response = self._pool.request(
                    method,
                    url,
                    headers=sent,
                    body=body,
                    preload_content=not stream,
                    decode_content=False,
                    chunked=False,
                )
            if response.status not in {401, 403}:
                return response
            detail = _error_detail(response.data)
            if response.status == 403 or last or not own:
                msg = f"{self.host}: {scope}: access denied (HTTP {response.status}{detail})"
                raise AccessDenied(msg)
            self._authorize(scope, response.headers.get("WWW-Authenticate", ""), used)
            if not replayable:
                return response
        raise AssertionError

    def _authorize(self, scope: Scope, challenge: str, used: str | None) -> None:
        with self._lock:
            if self._authorizations.get(scope) != used:
                return
            scheme, _, rest = challenge.partition(" ")
            parameters = dict(_CHALLENGE_PARAMETER.findall(rest))
            if not self._login_found or used:
                goes_to = (self.base_url, parameters.get("realm", self.base_url))
                encrypted = all(url.startswith("https://") for url in goes_to)
                self._login = find_login(self.host, encrypted=encrypted)
                self._login_found = True
            if scheme.lower() == "bearer" and "realm" in parameters:
                self._authorizations[scope] = "Bearer " + self._fetch_token(parameters, scope)
            elif self._login:
                self._authorizations[scope] = self._login.basic()
            else:
                msg = f"{self.host}: {scope}: no login was found; docker login, or a cloud identity"
                raise AccessDenied(msg)

    def _fetch_token(self, challenge: Mapping[str, str], scope: Scope) -> str:
        query = urlencode({"service": challenge.get("service", ""), "scope": str(scope)})
        headers = {"Authorization": self._login.basic()} if self._login else {}
        response = self._pool.request("GET", f"{challenge['realm']}?{query}", headers=headers)
        if response.status in _WORTH_RETRYING:
            msg = f"token service: HTTP {response.status}"
            raise TokenServiceError(msg)
        try:
            answer = json.loads(response.data) if response.status == 200 else {}
        except ValueError:
            answer = {}
        token = answer.get("token") or answer.get("access_token")
        if not token:
            msg = f"{self.host}: {scope}: no token from {challenge['realm']} (HTTP {response.status})"
            raise AccessDenied(msg)
        return str(token)

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _wait_while_paused(self, deadline: float) -> None:
        remaining = self._paused_until - time.monotonic()
        if remaining > 0:
            if self._paused_until >= deadline:
                msg = f"{self.host}: rate limited for another {remaining:.0f} s"
                raise RegistryDown(msg)
            time.sleep(remaining)


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds to wait that a Retry-After header asks for (RFC 9110, 10.2.3); None without one."""
    if not value:
        return None
    if value.isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def back_off_seconds(attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th failure, counted from 0; with jitter."""
    longest = min(_LONGEST_BACK_OFF_SECONDS, _FIRST_BACK_OFF_SECONDS * 2 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def _reason(error: HTTPError) -> str:
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, NameResolutionError):
        return "no address is known for that name"
    return type(cause).__name__


def _error_detail(body: bytes) -> str:
    try:
        first = json.loads(body)["errors"][0]
        return f", {first['code']}"
    except (ValueError, LookupError, TypeError):
        return ""
