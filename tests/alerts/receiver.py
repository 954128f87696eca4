"""Who is told of alerts in these tests: what Alertmanager's webhooks send, as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from typing_extensions import override

PATIENCE_SECONDS = 600.0
"""A busy machine takes its time; nothing depends on how long."""


@dataclass
class Receiver:
    """The URL that it listens at, and what it was told."""

    url: str = ""
    _told: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list[Any])
    _came: Condition = field(default_factory=Condition)

    def take(self, notification: Mapping[str, Any]) -> None:
        """Keep what one request says."""
        with self._came:
            self._told += [(time.monotonic(), alert) for alert in notification["alerts"]]
            self._came.notify_all()

    def wait(self, status: str, name: str, since: float, labels: Mapping[str, str]) -> float:
        """Wait until it is told that an alert is ``firing`` or ``resolved``: how long after ``since``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._came:
            while True:
                for at, alert in self._told:
                    own = alert["labels"]
                    if (
                        (alert["status"], own["alertname"]) == (status, name)
                        and at >= since
                        and labels.items() <= own.items()
                    ):
                        return at - since
                left = deadline - time.monotonic()
                assert left > 0, f"{name} {dict(labels)} was not told as {status}; told: {self.names()}"
                self._came.wait(left)

    def names(self) -> list[str]:
        """What it was told, shortly."""
        return [f"{alert['labels']['alertname']} {alert['status']}" for _, alert in self._told]


@contextmanager
def receiving() -> Generator[Receiver]:
    """Listen for as long as the block lasts."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
