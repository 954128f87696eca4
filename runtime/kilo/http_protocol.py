"""HTTP/1.1 for the processes that serve: uvicorn's parser in C, with the bounds that it leaves to others.

uvicorn's httptools protocol collects a request's head without a limit and answers malformed HTTP in plain
text. Here a head has a limit of bytes, and both are answered with problem details (RFC 9457).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT_BYTES = 131_072
"""A request line and its headers; the gateway lets through 60 KiB (Envoy's ``max_request_headers_kb``)."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a bounded head and problem details for what is not HTTP."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; the parser calls back below while it is in here."""
        if self.transport.is_closing():
            return
        if self._head_bytes > HEAD_LIMIT_BYTES:
            detail = f"a request's line and headers take at most {HEAD_LIMIT_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
            return
        self._head_bytes += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin the request: what follows is its body, whose size the application bounds."""
        super().on_headers_complete()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; the next one's head begins."""
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
