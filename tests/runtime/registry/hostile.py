"""A registry that answers as it is told to, however wrong: for what no real one can be made to send."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from kilo.registry.client import Registries
from kilo.registry.drift import Comparison, Kind, compare
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer, TagResult
from tests.runtime.registry.images import INDEX, MANIFEST, Shelf, digest_of


@dataclass
class Reply:
    """One answer. A body longer than its Content-Length, or shorter, is sent as it is."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    pieces: Callable[[], Any] | None = None
    """Instead of the body: bytes, one after the other, for as long as the client reads."""


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]


Rule = Callable[[Request], Reply | None]


class HostileRegistry:
    """Serves the repository ``app`` from memory, apart from what ``rule`` answers."""

    def __init__(self, rule: Rule = lambda _: None) -> None:
        self.rule = rule
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[Request] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError, TimeoutError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    parts.query,
                    {name.lower(): value for name, value in self.headers.items()},
                )
                registry.asked.append(request)
                reply = registry.rule(request) or registry.serve(request)
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in reply.headers):
                    if reply.pieces is None:
                        self.send_header("Content-Length", str(len(reply.body)))
                    else:
                        self.send_header("Connection", "close")
                        self.close_connection = True
                self.end_headers()
                if self.command == "HEAD":
                    return
                for piece in reply.pieces() if reply.pieces else (reply.body,):
                    self.wfile.write(piece)
                if reply.pieces is not None:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def name(self) -> str:
        return f"{self.host}/app"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, part: str) -> int:
        return sum(1 for request in self.asked if part in request.path)

    def blob(self, content: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put(
        self, document: dict[str, Any] | bytes, tag: str | None = None, media_type: str | None = None
    ) -> dict[str, Any]:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        own = document.get("mediaType", "") if isinstance(document, dict) else MANIFEST
        digest = digest_of(content)
        self.manifests[digest] = (content, own if media_type is None else media_type)
        if tag:
            self.tags[tag] = digest
        return {"mediaType": own, "digest": digest, "size": len(content)}

    def image(self, seed: str, tag: str | None = None, **more: Any) -> dict[str, Any]:
        return self.put({**self.document(seed), **more}, tag)

    def document(self, seed: str) -> dict[str, Any]:
        config = self.blob(json.dumps({"seed": seed}).encode(), "application/vnd.oci.image.config.v1+json")
        layer = self.blob(f"layer {seed}".encode() * 50, "application/vnd.oci.image.layer.v1.tar+gzip")
        return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}

    def index(self, *entries: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
        return self.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}, tag)

    def serve(self, request: Request) -> Reply:
        last = request.path.rpartition("/")[2]
        if "/referrers/" in request.path:
            found = [
                {"mediaType": media_type, "digest": digest, "size": len(content)}
                for digest, (content, media_type) in self.manifests.items()
                if last.encode() in content and _subject(content) == last
            ]
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()
            return Reply(200, body, [("Content-Type", INDEX)])
        if request.path.endswith("/tags/list"):
            return Reply(200, json.dumps({"name": "app", "tags": sorted(self.tags)}).encode())
        if "/manifests/" in request.path and (held := self.manifests.get(self.tags.get(last, last))):
            content, media_type = held
            headers = [("Content-Type", media_type), ("Docker-Content-Digest", self.tags.get(last, last))]
            return Reply(200, content, headers)
        if "/blobs/" in request.path and (content := self.blobs.get(last)) is not None:
            return Reply(200, content)
        return Reply(200 if request.path == "/v2/" else 404)


def _subject(content: bytes) -> str | None:
    try:
        return json.loads(content).get("subject", {}).get("digest")
    except (ValueError, AttributeError, RecursionError):
        return None


def sync(source: HostileRegistry, destination: Shelf) -> dict[str, TagResult]:
    with Synchronizer(registries=Registries(patience_seconds=10)) as synchronizer:
        found = synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))
    return {result.name: result for result in found}


def diff(source: HostileRegistry, destination: Shelf) -> Comparison:
    registries = Registries(patience_seconds=5)
    return compare(registries, Reference.parse(source.name), Reference.parse(destination.name))


def kinds(source: HostileRegistry, destination: Shelf) -> dict[str, set[Kind]]:
    found: dict[str, set[Kind]] = {}
    for finding in diff(source, destination).findings:
        found.setdefault(finding.tag, set()).add(finding.kind)
    return found
