"""A PostgreSQL of one's own, for a preview: from a directory, with a database and a role for a service.

For what may be lost with its volume. Left out on purpose: replicas, backups and upgrades, which the stage's
own database has and a preview needs not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql
from starlette.applications import Starlette

from kilo.backup.scratch import as_user, give_away, program
from kilo.environment import bind_address
from kilo.errors import BadInput, Unreachable
from kilo.health import Health
from kilo.service import health_routes, serve_until_stopped, stopping_event

DATABASE = "service"
SERVICE_ROLE = "service"
OWNER_ROLE = "service_owner"
ADMIN_VARIABLE = "KILO_ADMIN_PASSWORD"
SERVICE_VARIABLE = "KILO_SERVICE_PASSWORD"
OWNER_VARIABLE = "KILO_OWNER_PASSWORD"
_MEMBER_OF = ("kilo_ingest", "kilo_consumer")
"""What a service may do with the platform's own tables: write events, and consume them."""
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_WATCH_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_SETTINGS = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    # The migrations declare change capture, which nobody reads here: a slot must not fill the volume.
    "wal_level": "logical",
    "max_slot_wal_keep_size": "128MB",
    "unix_socket_directories": "",
    "timezone": "UTC",
}


class OwnServer:
    """The server on the pod's address, its data in ``directory``."""

    def __init__(self, directory: Path, port: int, password: str) -> None:
        self._directory = directory
        self._port = port
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        """The administrator's URL of a database."""
        return f"postgresql://postgres:{self._password}@{bind_address()}:{self._port}/{database}"

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, initialised the first time, and wait until it answers.

        Raises:
            Unreachable: it did not come up; its own log, which is this process's, says why.
        """
        data = self._directory / "data"
        if not (data / "PG_VERSION").exists():
            self._initialise(data)
        argv = [program("postgres"), "-D", str(data), "-h", bind_address(), "-p", str(self._port)]
        argv += [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(as_user(argv), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self.runs or time.monotonic() > deadline:
                msg = "postgres did not start; its lines above say why"
                raise Unreachable(msg)
            time.sleep(_PAUSE_SECONDS)

    def stop(self) -> None:
        """Stop it with a checkpoint; sessions that are open are ended."""
        if self._process is None or not self.runs:
            return
        # SIGTERM would wait for every client to leave.
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _initialise(self, data: Path) -> None:
        """Made beside its place and renamed, so that a killed initdb leaves nothing that looks whole."""
        work = self._directory / "data.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700, parents=True)
        give_away(work)
        with tempfile.NamedTemporaryFile(mode="w", encoding="ascii") as password:
            password.write(self._password)
            password.flush()
            give_away(Path(password.name))
            argv = [program("initdb"), f"--pgdata={work}", "--username=postgres", f"--pwfile={password.name}"]
            argv += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
            done = subprocess.run(as_user(argv), capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"initdb failed: {' '.join(done.stderr.split())[-300:]}"
            raise Unreachable(msg)
        work.rename(data)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def serve(directory: Path, database_port: int, port: int) -> None:
    """Serve until SIGTERM; sessions that are open then are ended.

    Args:
        directory: where the data lies; what is there already is served again.
        database_port: PostgreSQL's, on the pod's address.
        port: for health.

    Raises:
        BadInput: a password is not set, or PostgreSQL's programs are not on PATH.
        Unreachable: it did not come up, or ended.
    """
    admin = _password(ADMIN_VARIABLE)
    passwords = {SERVICE_ROLE: _password(SERVICE_VARIABLE), OWNER_ROLE: _password(OWNER_VARIABLE)}
    for name in ("initdb", "postgres"):
        if shutil.which(name) is None:
            msg = f"{name} is not on PATH: install PostgreSQL's server programs"
            raise BadInput(msg)
    asyncio.run(_serve(OwnServer(directory, database_port, admin), passwords, port))


async def _serve(server: OwnServer, passwords: Mapping[str, str], port: int) -> None:
    stopping = stopping_event()
    health = Health("database")
    try:
        await serve_until_stopped(
            Starlette(routes=health_routes(health)),
            port,
            stopping,
            [lambda: asyncio.ensure_future(_run(server, passwords, health, stopping))],
        )
    finally:
        await asyncio.to_thread(server.stop)


async def _run(
    server: OwnServer, passwords: Mapping[str, str], health: Health, stopping: asyncio.Event
) -> None:
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(_make_database, server, passwords)
    health.fine("database")
    while not stopping.is_set():
        if not server.runs:
            msg = "postgres ended by itself"
            raise Unreachable(msg)
        try:
            await asyncio.wait_for(stopping.wait(), _WATCH_SECONDS)
        except TimeoutError:
            continue


def _make_database(server: OwnServer, passwords: Mapping[str, str]) -> None:
    """The database and the service's roles: one owns its tables, the other reads and writes them."""
    owner, service, database = map(sql.Identifier, (OWNER_ROLE, SERVICE_ROLE, DATABASE))
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        for name in (OWNER_ROLE, SERVICE_ROLE, *_MEMBER_OF):
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        for name in _MEMBER_OF:
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), service))
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    with psycopg.connect(server.url_of(DATABASE), autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(owner))
        for what in (
            sql.SQL("SELECT, INSERT, UPDATE, DELETE ON TABLES"),
            sql.SQL("USAGE, SELECT ON SEQUENCES"),
        ):
            connection.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA public GRANT {} TO {}").format(
                    owner, what, service
                )
            )
        # Last: without a password nobody logs in, and so nobody finds rights that are half granted.
        for name, password in passwords.items():
            verifier = connection.pgconn.encrypt_password(
                password.encode(), name.encode(), b"scram-sha-256"
            ).decode()
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(verifier)))


def _password(variable: str) -> str:
    if not (found := os.environ.get(variable, "")):
        msg = f"{variable}: not set; it takes the password of a role"
        raise BadInput(msg)
    return found
