"""Real servers for tests: one of each a session, and a fresh database or bus account a test.

``database_url`` is an empty database with every migration applied, copied from a template, so that it
costs tens of milliseconds; ``empty_database_url`` has none applied. ``postgres`` and ``nats`` are the
servers themselves.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from tests.commands import Commands

_numbers = itertools.count(1)
_TEMPLATE = "kilo_template"


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """Give back what a command that was called in this process made of Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL 17 server; tests kill processes, not the machine, so it need not wait for the disk."""
    directory = tmp_path_factory.mktemp("postgres")
    server = PostgresServer(directory, settings={"fsync": "off", "synchronous_commit": "on"})
    server.start()
    _make_logins_cheap(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """The name of a database in which every migration has run."""
    _create(postgres, _TEMPLATE, "template1")
    from kilo.database import migrate

    migrate(postgres.url_of(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    """The superuser's URL of a new database without tables."""
    yield from _fresh(postgres, "template1")


@pytest.fixture
def database_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """The superuser's URL of a new database with every migration applied."""
    yield from _fresh(postgres, migrated_template)


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server with JetStream; a test names its own streams."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with Commands() as started:
        yield started


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory for servers that one test starts for itself."""
    return tmp_path


def _fresh(postgres: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _create(postgres, name, template)
    yield postgres.url_of(name)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(postgres: PostgresServer, name: str, template: str) -> None:
    # Pages of a small template written to the log one by one take twice the processor time of its files.
    copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(copied.format(sql.Identifier(name), sql.Identifier(template)))


def _make_logins_cheap(postgres: PostgresServer) -> None:
    """Have passwords hashed once and not 4,096 times: tests log in many thousands of times."""
    password = str(conninfo_to_dict(postgres.url)["password"])
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET scram_iterations = 1")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SET scram_iterations = 1")
        connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))
