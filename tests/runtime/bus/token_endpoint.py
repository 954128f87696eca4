"""An endpoint that gives tokens to clients (RFC 6749, 4.4), with what a broker needs to believe them."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

from sandbox.servers.kafka import TokenIssuer
from tests.runtime.traffic.certificates import Authority
from tests.runtime.traffic.tokens import AUDIENCE, ISSUER, Issuer

SCOPE = "events-of-a-test"
Sign = Callable[[str, int], str]
"""A token of a client that lives for so many seconds."""


class TokenEndpoint:
    """On ``127.0.0.1`` in TLS, for the name ``localhost``; of clients with their secrets.

    Whoever does not ask for :data:`SCOPE` gets nothing.
    """

    def __init__(self, directory: Path, clients: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority, self.issuer = Authority(), Issuer()
        self.ca_file, self._jwks = directory / "token-ca.pem", directory / "jwks.json"
        self.ca_file.write_bytes(authority.pem)
        self._jwks.write_text(self.issuer.jwks, encoding="utf-8")
        certificate, key, _ = authority.sign("localhost")
        (directory / "endpoint.pem").write_bytes(key + certificate)
        self.clients = clients
        self.given: Counter[str] = Counter()
        """How many tokens each client has had."""
        self.lives_seconds = 600
        self.sign: Sign = self.right
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "endpoint.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}/token"
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def believed(self) -> TokenIssuer:
        """What a broker is told."""
        return TokenIssuer(self._jwks, ISSUER, AUDIENCE)

    def right(self, client: str, lives_seconds: int) -> str:
        """What a broker believes."""
        return self.issuer.token(**claims(client, lives_seconds))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, authorization: str, body: str) -> tuple[HTTPStatus, dict[str, object]]:
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        if self.clients.get(client) != secret:
            return HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"}
        if asked != {"grant_type": "client_credentials", "scope": SCOPE}:
            return HTTPStatus.BAD_REQUEST, {"error": "invalid_scope"}
        self.given[client] += 1
        token = self.sign(client, self.lives_seconds)
        return HTTPStatus.OK, {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.lives_seconds,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = endpoint._answer(self.headers["Authorization"], body)
                said = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
                pass

        return Handler


def claims(client: str, lives_seconds: int, **other: object) -> dict[str, Any]:
    """What a token says as the endpoint gives them, where ``other`` does not say otherwise."""
    now = int(time.time())
    return {"sub": client, "iat": now, "exp": now + lives_seconds, "scope": SCOPE} | other
