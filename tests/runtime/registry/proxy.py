"""A real registry behind a proxy that misbehaves as told, and writes down what was asked."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What to do to a request: answer it, or spoil the registry's answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    spoil: Callable[[bytes], bytes] | None = None
    cut_answer_after: int | None = None
    cut_request_after: int | None = None
    delay_seconds: float = 0


Rule = Callable[[str, str], Fault | None]


class Proxy:
    """Passes everything on to ``target``, apart from what ``rule`` (method, path) finds a fault for.

    Nothing is answered to a request that is signed for one of AWS's ``lost_regions``.
    """

    def __init__(self, target: str) -> None:
        self.rule: Rule = lambda _method, _path: None
        self.asked: list[tuple[str, str]] = []
        self.authorizations: list[str | None] = []
        self.lost_regions: set[str] = set()
        self.under_way = 0
        self.most_under_way = 0
        proxy, host = self, urlsplit(target).netloc
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def pass_on(self) -> None:
                with lock:
                    proxy.under_way += 1
                    proxy.most_under_way = max(proxy.most_under_way, proxy.under_way)
                    proxy.asked.append((self.command, self.path))
                    proxy.authorizations.append(self.headers.get("Authorization"))
                try:
                    if self.region() in proxy.lost_regions:
                        self.close_connection = True
                        return
                    self.answer(proxy.rule(self.command, self.path) or Fault())
                finally:
                    with lock:
                        proxy.under_way -= 1

            def region(self) -> str:
                # https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
                scope = (self.headers.get("Authorization") or "").partition("Credential=")[2].split("/")
                return scope[2] if len(scope) > 4 else ""

            def answer(self, fault: Fault) -> None:
                time.sleep(fault.delay_seconds)
                length = int(self.headers.get("Content-Length") or 0)
                if fault.status is not None:
                    self.rfile.read(length)
                    self.send_response(fault.status)
                    for name, value in {**fault.headers, "Content-Length": "0"}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                back = http.client.HTTPConnection(host, timeout=60)
                try:
                    self.forward(fault, back, length)
                finally:
                    back.close()

            def forward(self, fault: Fault, back: http.client.HTTPConnection, length: int) -> None:
                headers = [(name, value) for name, value in self.headers.items() if name.lower() != "host"]
                back.putrequest(self.command, self.path, skip_accept_encoding=True)
                for name, value in headers:
                    back.putheader(name, value)
                back.endheaders()
                remaining = (
                    length if fault.cut_request_after is None else min(length, fault.cut_request_after)
                )
                while remaining and (piece := self.rfile.read(min(65536, remaining))):
                    back.send(piece)
                    remaining -= len(piece)
                if fault.cut_request_after is not None:
                    self.close_connection = True
                    return
                answer = back.getresponse()
                if self.command == "HEAD":
                    self.pass_head(answer, {})
                    return
                if fault.spoil is not None:
                    body = fault.spoil(answer.read())
                    self.pass_head(answer, {"content-length": str(len(body))})
                    self.wfile.write(body)
                    return
                self.pass_head(answer, {})
                sent, limit = 0, fault.cut_answer_after
                while piece := answer.read(65536):
                    piece = piece if limit is None else piece[: max(0, limit - sent)]
                    self.wfile.write(piece)
                    sent += len(piece)
                    if limit is not None and sent >= limit:
                        self.close_connection = True
                        return

            def pass_head(self, answer: http.client.HTTPResponse, changed: dict[str, str]) -> None:
                self.send_response(answer.status)
                headers = {k.lower(): v for k, v in answer.getheaders()} | changed
                headers.pop("transfer-encoding", None)
                headers.pop("connection", None)
                if "content-length" not in headers:
                    # What came in chunks goes on without them, so that only its end tells how long it is.
                    headers["connection"] = "close"
                    self.close_connection = True
                if "location" in headers:
                    headers["location"] = headers["location"].replace(host, proxy.host)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, part: str = "") -> int:
        return sum(1 for verb, path in self.asked if verb == method and part in path)


def once(fault: Fault, matches: Callable[[str, str], bool], times: int = 1) -> Rule:
    """The fault for the first requests that match, nothing afterwards."""
    left = [times]
    lock = threading.Lock()

    def rule(method: str, path: str) -> Fault | None:
        with lock:
            if left[0] and matches(method, path):
                left[0] -= 1
                return fault
        return None

    return rule
