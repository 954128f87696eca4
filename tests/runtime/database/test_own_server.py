"""The database of a preview: served, killed, served again; its roles may do what they must and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.wheels import postgres_programs
from tests.patience import until

PASSWORDS = {
    "KILO_ADMIN_PASSWORD": "adminadmin",
    "KILO_OWNER_PASSWORD": "ownerowner",
    "KILO_SERVICE_PASSWORD": "serviceservice",
}


class Served:
    """``kilo db serve`` as a pod runs it."""

    def __init__(self, directory: Path) -> None:
        self.port, self._health = free_port(), free_port()
        self._directory = directory
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = ["db", "serve", "--data", str(self._directory), "--database-port", str(self.port)]
        return subprocess.Popen(
            [sys.executable, "-m", "kilo.cli", *arguments, "--port", str(self._health)],
            env={
                **os.environ,
                **PASSWORDS,
                "POD_IP": "127.0.0.1",
                "PATH": f"{postgres_programs()}:{os.environ['PATH']}",
            },
        )

    def again(self) -> None:
        self.process = self._start()

    def connect(self, user: str, password: str) -> psycopg.Connection[tuple[object, ...]]:
        def made() -> psycopg.Connection[tuple[object, ...]] | None:
            assert self.process.poll() is None, "it ended"
            try:
                url = f"postgresql://{user}:{password}@127.0.0.1:{self.port}/service"
                return psycopg.connect(url, connect_timeout=2, autocommit=True)
            except psycopg.OperationalError:
                return None

        return until(made)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "data")
    yield made
    made.process.terminate()
    made.process.wait()


def test_each_role_does_its_own_and_a_kill_loses_nothing(served: Served) -> None:
    with served.connect("postgres", "adminadmin") as admin:
        admin.execute("CREATE TABLE platform (id int)")
    with served.connect("service_owner", "ownerowner") as owner:
        owner.execute("CREATE TABLE items (id int)")
    with served.connect("service", "serviceservice") as service:
        service.execute("INSERT INTO items VALUES (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("CREATE TABLE more (id int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("SELECT * FROM platform")
        member = "SELECT pg_has_role('kilo_ingest', 'USAGE'), pg_has_role('kilo_worker', 'USAGE')"
        with pytest.raises(psycopg.errors.UndefinedObject):
            service.execute(member)
        assert service.execute("SELECT pg_has_role('kilo_consumer', 'USAGE')").fetchone() == (True,)
    served.process.kill()
    served.process.wait()
    served.again()
    with served.connect("service", "serviceservice") as service:
        assert service.execute("SELECT id FROM items").fetchall() == [(1,)]


def test_a_password_that_is_not_set_is_named(tmp_path: Path) -> None:
    variables = {**os.environ, **PASSWORDS, "KILO_OWNER_PASSWORD": "", "POD_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "kilo.cli", "db", "serve", "--data", str(tmp_path)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "KILO_OWNER_PASSWORD: not set" in done.stderr


def test_a_file_of_sql_runs_whole_or_not_at_all(database_url: str, tmp_path: Path) -> None:
    def run(text: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "seed.sql"
        file.write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "kilo.cli", "db", "run", str(file)],
            env={**os.environ, "DATABASE_URL": database_url, "POD_IP": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("CREATE TABLE one (id int);\nINSERT INTO one VALUES (1);\n").returncode == 0
    broken = run("INSERT INTO one VALUES (2);\nINSERT INTO nowhere VALUES (3);\n")
    assert broken.returncode == 2
    assert "seed.sql:2:" in broken.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT id FROM one").fetchall() == [(1,)]
