"""A NATS server with JetStream, as one node.

``nats-server`` reads a configuration file; the platform's own is rendered by ``kilo.bus.config``,
and this one is the smallest that differs in nothing that a client sees. State lies under one directory.
"""

from __future__ import annotations

import os
import signal
from http import HTTPStatus
from pathlib import Path

import httpx

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from kilo.testing.servers.wheels import nats_server


class NatsServer:
    """A server on ``address``:``port`` with its streams under ``directory``.

    Args:
        directory: where streams, configuration and log lie; made when missing.
        address: the loopback address to listen on.
        port: a free one when not given.
        sync_interval: how long an acknowledged message may be unsynced: ``always``, or as ``2m``.
        max_store_bytes: JetStream's limit on disk, 0 for none.
        access: users and TLS, as :mod:`kilo.bus.config` renders them; without, all may do everything.
    """

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        port: int | None = None,
        *,
        sync_interval: str = "2m",
        max_store_bytes: int = 0,
        access: str = "",
    ) -> None:
        self.directory = directory
        self.address = address
        self.port = port or free_port(address)
        self.monitor_port = free_port(address)
        self._sync_interval = sync_interval
        self._max_store_bytes = max_store_bytes
        self.access = access
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The client URL."""
        return f"nats://{self.address}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until JetStream is ready.

        Raises:
            Unreachable: it did not come up; the message has the log's last lines.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self._write()
        self._process = ServerProcess(
            name="nats",
            argv=[str(nats_server()), "--config", str(configuration)],
            env=dict(os.environ),
            directory=self.directory,
            log_path=self.directory / "nats.log",
            ready=self._healthy,
        )
        self._process.start()

    def stop(self) -> None:
        """Stop it in order."""
        if self._process is not None:
            self._process.stop()

    def reload(self, access: str) -> None:
        """Let the running server take up other users and certificates; it does so a moment later."""
        self.access = access
        self._write()
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def _write(self) -> Path:
        configuration = self.directory / "nats.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        return configuration

    def _configuration(self) -> str:
        limit = f"max_file_store: {self._max_store_bytes}" if self._max_store_bytes else ""
        return f"""\
host: "{self.address}"
port: {self.port}
http: "{self.address}:{self.monitor_port}"
max_payload: 2MB
jetstream {{
  store_dir: "{self.directory / "store"}"
  sync_interval: {self._sync_interval}
  {limit}
}}
{self.access}"""

    def _healthy(self) -> bool:
        try:
            answer = httpx.get(f"http://{self.address}:{self.monitor_port}/healthz", timeout=2)
        except httpx.HTTPError:
            return False
        return answer.status_code == HTTPStatus.OK
