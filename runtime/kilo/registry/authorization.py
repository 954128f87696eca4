"""Logging in where a registry asks for it: Basic, or a bearer token from the service that it names.

Protocol: https://distribution.github.io/distribution/spec/auth/token/. A token service in plain HTTP that
a registry over HTTPS names is refused, and a cloud's token is never sent in plain text, whichever realm
comes first or later.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

from kilo.registry.credentials import Login, find_login
from kilo.registry.errors import AccessDenied, Unreadable
from kilo.registry.headers import Challenge, parse_challenges
from kilo.registry.parsing import parse_object, printable

_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")

Fetch = Callable[[str, Mapping[str, str]], tuple[int, bytes]]
"""Sends a GET to a URL with headers; gives the status and the body."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is asked for (https://distribution.github.io/distribution/spec/auth/scope/)."""

    repository: str
    actions: str

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}" if self.repository else self.actions


class TokenServiceError(HTTPError):
    """The service that hands out a registry's tokens is in trouble; worth another try."""


class Authorizations:
    """The Authorization headers of one registry, by scope. Thread-safe."""

    def __init__(self, host: str, base_url: str, fetch: Fetch, worth_retrying: Callable[[int], bool]) -> None:
        self._host = host
        self._base_url = base_url
        self._fetch = fetch
        self._worth_retrying = worth_retrying
        self._lock = threading.Lock()
        self._headers: dict[Scope, str] = {}
        self._logins: dict[bool, Login | None] = {}

    def get(self, scope: Scope) -> str | None:
        """The header for ``scope``, if one was needed so far."""
        return self._headers.get(scope)

    def set(self, scope: Scope, header: str) -> None:
        """Use ``header`` for ``scope``."""
        self._headers[scope] = header

    def renew(self, scope: Scope, challenge: str, used: str | None) -> None:
        """Log in as ``challenge`` (WWW-Authenticate) asks, unless another thread has since ``used`` was sent.

        Raises:
            AccessDenied: no login was found, or it was not taken.
            HTTPError: the token service did not answer.
        """
        with self._lock:
            if self._headers.get(scope) != used:
                return
            if used:
                self._logins.clear()
            offered = parse_challenges(challenge)
            bearer = next(
                (one for one in offered if one.scheme == "bearer" and "realm" in one.parameters), None
            )
            if bearer:
                self._headers[scope] = f"Bearer {self._token(bearer, scope)}"
                return
            login = self._login(encrypted=self._base_url.startswith("https://"))
            if login is None:
                msg = f"{self._host}: {scope}: no login was found; docker login, or a cloud identity"
                raise AccessDenied(msg)
            if offered and not any(one.scheme == "basic" for one in offered):
                schemes = printable(", ".join(one.scheme for one in offered))
                msg = (
                    f"{self._host}: {scope}: it asks for {schemes}, and Basic or Bearer are what kilo speaks"
                )
                raise AccessDenied(msg)
            self._headers[scope] = login.basic()

    def _login(self, *, encrypted: bool) -> Login | None:
        if encrypted not in self._logins:
            self._logins[encrypted] = find_login(self._host, encrypted=encrypted)
        return self._logins[encrypted]

    def _token(self, challenge: Challenge, scope: Scope) -> str:
        realm = self._realm(challenge.parameters["realm"], scope)
        encrypted = all(url.startswith("https://") for url in (self._base_url, realm))
        login = self._login(encrypted=encrypted)
        query = urlencode({"service": challenge.parameters.get("service", ""), "scope": str(scope)})
        separator = "&" if urlsplit(realm).query else "?"
        status, body = self._fetch(
            f"{realm}{separator}{query}", {"Authorization": login.basic()} if login else {}
        )
        if self._worth_retrying(status):
            msg = f"token service: HTTP {status}"
            raise TokenServiceError(msg)
        token: object = None
        if status == 200:
            try:
                answer = parse_object(body, "token")
            except Unreadable:
                answer = {}
            token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            service = printable(realm.partition("?")[0])
            msg = f"{self._host}: {scope}: no token from {service} (HTTP {status})"
            raise AccessDenied(msg)
        return token

    def _realm(self, realm: str, scope: Scope) -> str:
        """The token service's URL, checked; it may have a query of its own."""
        try:
            parts = urlsplit(realm)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            usable, parts = False, urlsplit("")
        if not usable or (parts.scheme == "http" and self._base_url.startswith("https://")):
            wrong = "a token service in plain HTTP" if usable else "a token service that is no HTTP URL"
            msg = f"{self._host}: {scope}: it names {wrong}: {printable(realm.partition('?')[0])}"
            raise AccessDenied(msg)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
