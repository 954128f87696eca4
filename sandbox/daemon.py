"""The sandbox's one long-running process: it answers for every server and every pod of a project.

One daemon has a project's ``.kilo/`` at a time. It starts the servers that stand for the clouds, puts the
secrets there that a stage expects to find, and serves the cluster; where everything answers is written
to ``.kilo/endpoints.json`` once all of it is ready. When it ends, in order or not, so do all of them, and
what they store is there for the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import psycopg

from kilo.errors import KiloError, Unreachable
from kilo.testing.servers.postgres import PostgresServer
from kilo.testing.servers.process import tail
from sandbox import toolchain
from sandbox.backing import Backing, write_atomically
from sandbox.cluster.service import ClusterService, ServerUrls
from sandbox.contexts.forwarding import LOOPBACK, address_of, forward
from sandbox.own_database import DATABASE, SERVER, ports_of
from sandbox.previews import collect_until
from sandbox.secrets import put_stage_secrets
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.leftovers import MARK, end_processes_of, start_guardian
from sandbox.servers.moto import MotoServer
from sandbox.servers.registries import PrimaryRegistry, SecondaryRegistry
from sandbox.stages import DEV, region_of, write_registries_conf
from sandbox.toolchain.progress import Progress

# The cloud APIs' journal is replayed, and a long one takes its time.
START_SECONDS = 400.0
STOP_SECONDS = 60.0
TOOLS = (
    "pulumi",
    "postgres",
    "nats-server",
    "envoy",
    "java",
    "debezium",
    "prometheus",
    "alertmanager",
    "docker-registry",
    "crds",
)
STATUS_SECONDS = 0.5
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 40, 0.025


@dataclass(frozen=True)
class Endpoints:
    """Where a running daemon's components answer, URLs without credentials, and which program it runs."""

    pid: int
    cluster: str
    aws: str
    gcs: str
    primary_registry: str
    secondary_registry: str
    database: str
    program: str = ""


@dataclass(frozen=True)
class Home:
    """The daemon's files under a project's ``.kilo/``."""

    directory: Path

    @property
    def lock(self) -> Path:
        """Held by the running daemon."""
        return self.directory / "daemon.lock"

    @property
    def endpoints(self) -> Path:
        """Written when everything is ready, removed when it stops."""
        return self.directory / "endpoints.json"

    @property
    def status(self) -> Path:
        """How each server outside the cluster fares."""
        return self.directory / "servers.json"

    @property
    def log(self) -> Path:
        """The daemon's own log."""
        return self.directory / "logs" / "daemon.log"


def running(project: Path) -> Endpoints | None:
    """The endpoints of the project's daemon if it runs and is ready."""
    home = Home(project.resolve() / ".kilo")
    if not _is_locked(home.lock):
        return None
    try:
        found = Endpoints(**json.loads(home.endpoints.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    # One that was killed leaves its endpoints behind, until its successor has the lock and removes them.
    return found if Path(f"/proc/{found.pid}").exists() else None


def database_url(project: Path) -> str:
    """The URL of the running sandbox's database with its superuser's password."""
    home = Home(project.resolve() / ".kilo")
    port = ports_of(home.directory).known(SERVER)
    return PostgresServer(home.directory / "postgres", port=port).url_of(DATABASE)


def ensure_running(project: Path) -> Endpoints:
    """Start the project's daemon if it is not running and wait until it is ready.

    One that began before the sandbox's program was changed, by an update for one, is replaced.

    Raises:
        Unreachable: it did not become ready; the message has the last lines of its log.
    """
    home = Home(project.resolve() / ".kilo")
    if found := running(project):
        if found.program == program():
            return found
        sys.stderr.write("The sandbox runs an earlier program; starting it again.\n")
        stop(project)
    toolchain.ensure(*TOOLS)
    home.log.parent.mkdir(parents=True, exist_ok=True)
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandbox.daemon", str(project.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with Progress() as progress, progress.step("sandbox", "starting its servers"):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := running(project):
                return found
            # Another caller may have started the daemon that holds the lock; ours then ends with 0.
            if process.poll():
                break
            time.sleep(0.05)
        msg = f"the sandbox did not start:\n{tail(home.log)}"
        raise Unreachable(msg)


def program() -> str:
    """What stands for the sandbox's program as it lies on disk now: other files, another text."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        found = file.stat()
        digest.update(f"{file} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def stop(project: Path) -> bool:
    """Stop the project's daemon and everything that it runs; says whether there was one.

    Raises:
        Unreachable: it did not stop in time.
    """
    home = Home(project.resolve() / ".kilo")
    if not _is_locked(home.lock):
        end_processes_of(str(home.directory))
        return False
    pid = int(home.lock.read_text())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_locked(home.lock):
        if time.monotonic() > deadline:
            msg = f"the sandbox (process {pid}) did not stop within {STOP_SECONDS:.0f} s; see {home.log}"
            raise Unreachable(msg)
        time.sleep(0.05)
    end_processes_of(str(home.directory))
    return True


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            # Shared: who looks at the same time must not be taken for a daemon.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def take(lock: TextIO) -> bool:
    """Take the daemon's lock; says no when another daemon has it."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # It may be somebody who looks whether there is a daemon, for an instant.
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


async def _serve(project: Path, home: Home) -> None:
    own_program = program()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ports = ports_of(home.directory)
    region = region_of(project, DEV)
    postgres = PostgresServer(
        home.directory / "postgres", port=ports.of(SERVER), settings={"track_commit_timestamp": "on"}
    )
    aws = MotoServer(home.directory / "aws", port=ports.of("aws"))
    gcs = FakeGcsServer(home.directory / "gcs", port=ports.of("gcs"))
    primary = PrimaryRegistry(
        home.directory / "registry-primary", port=ports.of("registry-primary"), aws=aws.url, region=region
    )
    secondary = SecondaryRegistry(home.directory / "registry-secondary", port=ports.of("registry-secondary"))
    backing = Backing(
        {
            "postgres": (postgres, f"127.0.0.1:{postgres.port}"),
            "aws": (aws, aws.url),
            "gcs": (gcs, gcs.url),
            "registry-primary": (primary, primary.url),
            "registry-secondary": (secondary, secondary.url),
        }
    )
    address = address_of(home.directory)

    def reached(url: str) -> str:
        return url.replace(LOOPBACK, address)

    try:
        await asyncio.to_thread(backing.start)
        await asyncio.to_thread(_ensure_database, postgres)
        database = reached(postgres.url_of(DATABASE))
        await asyncio.to_thread(put_stage_secrets, project, aws.url, database)
        registries = (reached(primary.url), reached(secondary.url))
        write_registries_conf(home.directory / "registries.conf", project, *registries)
        servers = (postgres, aws, gcs, primary, secondary)
        opened = await forward(address, [server.port for server in servers])
        cluster = ClusterService(
            home.directory,
            ServerUrls(
                aws=aws.url,
                gcs=gcs.url,
                primary_registry=primary.url,
                secondary_registry=secondary.url,
                postgres_programs=toolchain.path("postgres"),
            ),
        )
        try:
            url = await cluster.start()
            endpoints = Endpoints(
                pid=os.getpid(),
                cluster=url,
                aws=reached(aws.url),
                gcs=reached(gcs.url),
                primary_registry=registries[0],
                secondary_registry=registries[1],
                database=f"127.0.0.1:{postgres.port}/{DATABASE}",
                program=own_program,
            )
            write_atomically(home.endpoints, asdict(endpoints))
            await asyncio.gather(_report_until(stopped, home, backing), collect_until(stopped, project))
        finally:
            home.endpoints.unlink(missing_ok=True)
            await cluster.stop()
            for server in opened:
                server.close()
    finally:
        await asyncio.to_thread(backing.stop)
        home.status.unlink(missing_ok=True)


async def _report_until(stopped: asyncio.Event, home: Home, backing: Backing) -> None:
    last = None
    while not stopped.is_set():
        now = [
            {
                "name": component.name,
                "state": component.state,
                "since": component.since,
                "restarts": component.restarts,
                "address": component.address,
            }
            for component in backing.components
        ]
        if now != last:
            write_atomically(home.status, now)
            last = now
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), STATUS_SECONDS)


def _ensure_database(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if found is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")  # type: ignore[arg-type]


def main() -> int:
    """Run the daemon of the project that the first argument names until it is told to stop."""
    project = Path(sys.argv[1]).resolve()
    home = Home(project / ".kilo")
    home.directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # httpx says every readiness probe at this level.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with home.lock.open("a+") as lock:
        if not take(lock):
            return 0
        home.endpoints.unlink(missing_ok=True)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        owner = str(home.directory)
        end_processes_of(owner)
        os.environ[MARK] = owner
        start_guardian(owner)
        try:
            asyncio.run(_serve(project, home))
        except KiloError as error:
            logging.getLogger(__name__).error("%s", error)  # noqa: TRY400  its line is enough
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
