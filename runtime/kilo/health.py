"""Whether a process can work, and HTTP for it where a process serves nothing else.

``/livez`` answers 200 while the process runs, ``/readyz`` 200 or 503 as the process says, and
``/metrics`` the Prometheus text format. On threads of its own, so that a busy main thread can't
fail its probes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from kilo.errors import BadInput
from kilo.extras import requires

with requires():
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

ADDRESS_VARIABLE = "POD_IP"


class Health:
    """Why the process is not ready, by component; ready when there is no reason."""

    def __init__(self, *components: str) -> None:
        self._reasons = dict.fromkeys(components, "starting")

    def fine(self, component: str) -> None:
        """``component`` works."""
        self._reasons.pop(component, None)

    def broken(self, component: str, reason: str) -> None:
        """``component`` does not work."""
        self._reasons[component] = reason

    @property
    def reasons(self) -> dict[str, str]:
        """What is broken, and why."""
        return dict(self._reasons)


class HealthServer:
    """Serves a process's health on ``POD_IP`` (loopback where that is unset). A context manager."""

    def __init__(
        self, port: int, registry: CollectorRegistry, ready: Callable[[], bool] = lambda: True
    ) -> None:
        address = os.environ.get(ADDRESS_VARIABLE) or "127.0.0.1"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/livez":
                    self._answer(200, b"ok\n")
                elif self.path == "/readyz":
                    fine = ready()
                    self._answer(200 if fine else 503, b"ok\n" if fine else b"not ready\n")
                else:
                    self._answer(404, b"not found\n")

            def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                """Probes are not worth a line each."""

        try:
            self._server = ThreadingHTTPServer((address, port), Handler)
        except OSError as error:
            msg = f"--port {port}: can't listen on {address}: {error.strerror}"
            raise BadInput(msg) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
