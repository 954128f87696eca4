"""The fixtures of :mod:`kilo.testing`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

import nats
import psycopg
import pytest
from nats.js.errors import NotFoundError
from psycopg import sql

from kilo.bus.access import CA_VARIABLE, NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.streams import StreamPolicy, apply_streams, declare_streams
from kilo.contract import StackOutputs
from kilo.database import migrate
from kilo.fle.kms import KmsClients
from kilo.testing.kms import LocalKms
from kilo.testing.outputs import make_outputs
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer

_TEMPLATE = "kilo_template"


@pytest.fixture(scope="session")
def kilo_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server that does not wait for the disk: tests kill processes, not the machine."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), settings={"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kilo_template_database(kilo_postgres: PostgresServer) -> str:
    """The name of a database with Kilo's tables; apply your own migrations to it once a session."""
    _execute(kilo_postgres, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    migrate(kilo_postgres.url_of(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def kilo_database_url(kilo_postgres: PostgresServer, kilo_template_database: str) -> Iterator[str]:
    """The owner's URL of a new database with Kilo's tables; dropped when the test ends."""
    database = f"test_{secrets.token_hex(6)}"
    name = sql.Identifier(database)
    template = sql.Identifier(kilo_template_database)
    _execute(kilo_postgres, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
    yield kilo_postgres.url_of(database)
    _execute(kilo_postgres, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(scope="session")
def kilo_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server with JetStream, to which nothing of a stage's bus is shown."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name in (USER_VARIABLE, PASSWORD_VARIABLE, CA_VARIABLE, NAME_VARIABLE):
            environment.delenv(name, raising=False)
        yield server
    server.stop()


@pytest.fixture
def kilo_nats_url(kilo_nats_server: NatsServer) -> str:
    """The client URL of the bus."""
    return kilo_nats_server.url


@pytest.fixture
def kilo_outputs(kilo_database_url: str, kilo_nats_url: str) -> StackOutputs:
    """Outputs of the stage ``test``; its stream is declared, and empty."""
    outputs = make_outputs(kilo_database_url, kilo_nats_url)
    asyncio.run(_declare(outputs))
    return outputs


@pytest.fixture
def kilo_kms() -> KmsClients:
    """KMS clients without a cloud, whose keys are gone with the test."""
    return KmsClients(aws=LocalKms())


async def _declare(outputs: StackOutputs) -> None:
    client = await nats.connect(outputs.bus.url)
    try:
        # Without the stream of Debezium's heartbeats, whose subjects are not a test's own.
        events, _ = declare_streams(outputs.bus, StreamPolicy())
        jetstream = client.jetstream()
        with contextlib.suppress(NotFoundError):
            await jetstream.delete_stream(outputs.bus.stream)
        await apply_streams(jetstream, [events])
    finally:
        await client.close()


def _execute(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)
