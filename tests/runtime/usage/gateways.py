"""A real gateway that writes entries, and a collector as a process of its own beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from kilo.traffic.settings import GatewaySettings, Upstream
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, free_port


def make_gateway(directory: Path, stable: UpstreamServer, name: str) -> Gateway:
    place = directory / name
    (place / "mount").mkdir(parents=True)
    settings = GatewaySettings(
        listener_port=free_port(),
        operations_port=free_port(),
        stable=Upstream(host=ADDRESS, port=stable.port),
        shedding_enabled=False,
        usage_log=str(place / "usage.log"),
    )
    return Gateway(place / "mount", settings)


def admin_of(gateway: Gateway) -> str:
    """Its admin socket, which the tests' gateways name after their directory."""
    return f"@kilo-{gateway.directory}"


class CollectorProcess:
    """``kilo usage collect`` beside a gateway; it may be killed and started as often as a test likes."""

    def __init__(self, gateway: Gateway, database_url: str, source: str, rotate_bytes: int) -> None:
        self._port = free_port()
        file = gateway.settings.usage_log
        assert file is not None
        self.file = Path(file)
        self._command = [
            *(sys.executable, "-m", "kilo.cli", "usage", "collect", "--file", file, "--source", source),
            *("--admin", admin_of(gateway), "--pause-seconds", "0.05", "--port", str(self._port)),
            *("--rotate-mebibytes", str(rotate_bytes / 2**20)),
        ]
        self._environment = {**os.environ, "DATABASE_URL": database_url, "KILO_LOG": "json"}
        self._process: subprocess.Popen[bytes] | None = None
        self.output = self.file.with_name("collector.log")

    def start(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def ready(self) -> None:
        until(self._is_ready, f"collector ready; it said: {self.output.read_text()[-2000:]}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End it as a pod's end does, once all is read."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait()

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://{ADDRESS}:{self._port}/readyz").status_code == 200
        return False


def seen_in(directory: Path, words: list[str], but: Callable[[Path], bool] = lambda _: False) -> list[str]:
    """Which of ``words`` stand in any file below ``directory``."""
    texts = [path.read_bytes().lower() for path in directory.rglob("*") if path.is_file() and not but(path)]
    return [word for word in words if any(word.lower().encode() in text for text in texts)]
