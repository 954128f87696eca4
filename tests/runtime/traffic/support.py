"""A real Envoy, mounted as a kubelet would, in front of small real upstreams."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from kilo.tenancy import Objective, RateLimit, Tenant
from kilo.traffic.envoy import BOOTSTRAP_FILE, container_args, render_files
from kilo.traffic.settings import CONFIG_DIRECTORY, GatewaySettings
from tests.patience import PATIENCE_SECONDS, until

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
ADDRESS = "127.0.0.1"


def make_tenant(name: str, **changes: Any) -> Tenant:
    """Make a tenant whose limit no test meets by accident."""
    settings: dict[str, Any] = {
        "tier": "gold",
        "limit": RateLimit(requests_per_second=100_000, burst=1_000_000),
        "timeout_ms": 10_000,
        "retries": 0,
        "objective": Objective(availability_percent=99.9, latency_threshold_ms=5_000, latency_percent=99),
        "spans_per_second": 100,
    }
    return Tenant.model_validate({**settings, **changes, "id": name})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


class UpstreamServer:
    """An HTTP server that says its version, and fails or waits when the request's headers ask for it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.fails_for: set[str] = set()
        self.requests: list[Mapping[str, str]] = []
        self.tries: Counter[str] = Counter()
        self.release = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One write an answer: two would wait for each other (Nagle and delayed acknowledgement).
            wbufsize = -1

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                upstream.requests.append({name.lower(): value for name, value in self.headers.items()})
                key = self.headers.get("idempotency-key", "")
                upstream.tries[key] += 1
                late = upstream.tries[key] <= int(self.headers.get("x-test-slow-tries") or 0)
                if late or "x-test-hang" in self.headers:
                    upstream.release.wait(PATIENCE_SECONDS)
                time.sleep(float(self.headers.get("x-test-delay") or 0))
                fails = upstream.tries[key] <= int(self.headers.get("x-test-failures") or 0)
                fails |= self.headers.get("x-tenant-id") in upstream.fails_for
                body = upstream.version.encode()
                self.send_response(503 if fails else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer((ADDRESS, 0), Handler)
        self._server.daemon_threads = True
        self._server.socket.listen(128)  # of the class's own five, a new gateway's first connections take all
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files as a kubelet mounts them: a new directory, then one rename of the ``..data`` link."""
    version = directory / f"..{uuid.uuid4().hex}"
    version.mkdir(parents=True)
    for name, content in files.items():
        (version / name).write_bytes(content)
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(Path("..data", name))
    fresh = directory / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.rename(directory / "..data")


class Gateway:
    """One Envoy with its mounted directory."""

    def __init__(self, directory: Path, settings: GatewaySettings) -> None:
        self.directory = directory
        self.settings = settings
        self.url = f"http://{ADDRESS}:{settings.listener_port}"
        self.operations = f"http://{ADDRESS}:{settings.operations_port}"
        self.log = directory.parent / "access.log"
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self, files: Mapping[str, str]) -> None:
        """Publish files as a kubelet does, with the directories of this gateway."""
        own = {name: text.replace(CONFIG_DIRECTORY, str(self.directory)) for name, text in files.items()}
        publish(self.directory, {name: text.encode() for name, text in own.items()})

    def start(self, tenants: list[Tenant], change: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Mount and start; ``change`` may alter the bootstrap first."""
        files = render_files(tenants, self.settings)
        if change is not None:
            bootstrap = json.loads(files[BOOTSTRAP_FILE])
            change(bootstrap)
            files[BOOTSTRAP_FILE] = json.dumps(bootstrap)
        self.mount(files)
        arguments = [
            argument.replace(CONFIG_DIRECTORY, str(self.directory))
            for argument in container_args(tenants, self.settings, ADDRESS)
        ]
        # Two gateways of two tests share a network namespace, which two pods don't.
        arguments = [
            argument.replace(f"@kilo-gateway-{ADDRESS}", f"@kilo-{self.directory}") for argument in arguments
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [ENVOY, *arguments, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._is_ready, f"gateway ready; it said: {self.log.read_text()[-2000:]}")

    @property
    def pid(self) -> int | None:
        """Envoy's process id while it runs."""
        return self._process.pid if self._process else None

    def swap(self, tenants: list[Tenant], settings: GatewaySettings | None = None) -> None:
        """Publish other tenants or settings to the running gateway."""
        self.mount(render_files(tenants, settings or self.settings))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def config_dump(self, resource: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.operations}/config_dump", params={"resource": resource})
        return answer.json().get("configs", [])

    def weights(self, tenant: str) -> dict[str, int]:
        """Read a tenant's weights back from what Envoy itself says is active."""
        for entry in self.config_dump("dynamic_route_configs"):
            hosts = entry["route_config"]["virtual_hosts"]
            (host,) = (each for each in hosts if tenant in each["domains"])
            clusters = host["routes"][-1]["route"]["weighted_clusters"]["clusters"]
            return {cluster["name"]: cluster.get("weight", 0) for cluster in clusters}
        return {}

    def metrics(self) -> str:
        return httpx.get(f"{self.operations}/metrics").text

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"envoy ended: {self.log.read_text()[-3000:]}")
        try:
            return httpx.get(f"{self.operations}/readyz").status_code == 200
        except httpx.TransportError:
            return False
