"""The platform's tables in a schema of their own, beside an application that has the database to itself."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from kilo.cdc.properties import ConnectorSettings, render_properties
from kilo.database import ROLES, migrate
from kilo.database.migrator import migrations
from kilo.errors import BadInput
from kilo.outbox import Event, enqueue, enqueue_many, sqlalchemy_session
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.moto import MotoServer
from tests.events import make_outputs, make_platform
from tests.patience import until

SCHEMA = "kilo"
EVENT = Event("acme", "order", "42", "order.paid", {"n": 1}, "acme/key")


def test_every_event_goes_its_way_in_a_schema_of_its_own(postgres: PostgresServer, tmp_path: Path) -> None:
    nats, moto = NatsServer(tmp_path / "nats"), MotoServer(tmp_path / "moto")
    nats.start()
    moto.start()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE own_schema")
        # The application's own default, and tables of its own that are called like the platform's.
        connection.execute("ALTER DATABASE own_schema SET search_path = app, public")
    with psycopg.connect(postgres.url_of("own_schema"), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app")
        for schema in ("app", "public"):
            for table in ("outbox", "events", "inbox", "leases"):
                connection.execute(
                    sql.SQL("CREATE TABLE {} (mine int)").format(sql.Identifier(schema, table))
                )
    with make_platform(tmp_path, postgres, nats, moto, "own_schema", schema=SCHEMA) as platform:
        platform.start_ingest()
        platform.start_worker()
        platform.start_consumer()
        platform.start_reconciler()
        platform.start_debezium()
        for number, aggregate in enumerate(("order", "payment")):
            answer = httpx.post(
                f"{platform.ingest_url}/v1/events",
                headers={"x-tenant-id": "acme", "idempotency-key": f"k{number}"},
                json={
                    "aggregate": aggregate,
                    "aggregate_id": "1",
                    "kind": "k.made",
                    "payload": {"email": "a@b.c"},
                },
                timeout=30,
            )
            assert answer.status_code == 201, answer.text
        until(
            lambda: platform.sql("SELECT publisher FROM inbox ORDER BY 1") == [("cdc",), ("worker",)],
            "the events did not arrive",
        )
        until(
            lambda: not platform.sql("SELECT FROM outbox WHERE dequeued_at IS NULL"),
            "the reconciler did not mark what change capture delivered",
        )
        outside = platform.sql(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'S', 'v') AND n.nspname !~ '^(pg_|information_schema|kilo$)'"
        )
        assert sorted(outside) == sorted(
            (schema, table)
            for schema in ("app", "public")
            for table in ("outbox", "events", "inbox", "leases")
        )
    moto.stop()
    nats.stop()


def test_a_writer_with_another_search_path_names_the_schema(empty_database_url: str) -> None:
    url = empty_database_url
    migrate(url, schema=SCHEMA)
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = pg_catalog")
        assert not enqueue(connection, EVENT, SCHEMA).duplicate
        assert [each.duplicate for each in enqueue_many(connection, [EVENT], SCHEMA)] == [True]
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    sqlalchemy_session.install()
    with Session(engine) as session:
        other = Event("acme", "order", "42", "order.paid", {"n": 2}, "acme/other")
        sqlalchemy_session.record(session, other, SCHEMA)
        session.commit()
        assert sqlalchemy_session.enqueue(session, other, SCHEMA).duplicate
    engine.dispose()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kilo.outbox").fetchone() == (2,)


@pytest.mark.parametrize("schema", ["public", SCHEMA])
def test_roles_find_the_schema_whatever_the_database_says(empty_database_url: str, schema: str) -> None:
    migrate(empty_database_url, dict.fromkeys(ROLES, "secret"), schema=schema)
    migrate(empty_database_url, schema=schema)
    for role in ROLES:
        with psycopg.connect(empty_database_url, user=role, password="secret") as connection:
            assert connection.execute("SHOW search_path").fetchone() == (f"{schema}, pg_temp",)


def test_the_schema_is_chosen_once(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with pytest.raises(BadInput, match="schema_name: 'kilo', but the tables are in the schema 'public'"):
        migrate(empty_database_url, schema=SCHEMA)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('kilo')").fetchone() == (None,)


def test_migrations_name_no_schema_but_where_it_is_rendered() -> None:
    for migration in migrations():
        rest = re.sub(r"SCHEMA public\b|search_path = public\b", "", migration.text)
        assert not re.search(r"\bpublic\b", rest), migration.name


def test_change_capture_reads_the_table_of_the_schema() -> None:
    outputs = make_outputs()
    rendered = render_properties(ConnectorSettings(outputs.bus, outputs.outbox, schema=SCHEMA))
    assert "debezium.source.table.include.list=kilo.outbox\n" in rendered


@pytest.mark.parametrize("schema", ["public", SCHEMA])
@pytest.mark.parametrize("table", ["outbox_fingerprints", "outbox_cdc_aggregates"])
def test_a_writers_own_temporary_tables_are_not_the_outboxs(
    empty_database_url: str, schema: str, table: str
) -> None:
    migrate(empty_database_url, schema=schema)
    name = sql.Identifier(schema, table)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("SET ROLE kilo_ingest")
        connection.execute(sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(sql.Identifier(table), name))
        connection.execute(sql.SQL("GRANT ALL ON {} TO PUBLIC").format(sql.Identifier("pg_temp", table)))
        connection.execute(
            sql.SQL("INSERT INTO {} VALUES ({})").format(
                sql.Identifier("pg_temp", table),
                sql.SQL("'acme/key', 'acme', 1, now(), ''")
                if table == "outbox_fingerprints"
                else sql.SQL("'order'"),
            )
        )
        with connection.transaction():
            written = enqueue(connection, EVENT, schema)
        assert not written.duplicate
        found = connection.execute(
            sql.SQL("SELECT publisher FROM {}").format(sql.Identifier(schema, "outbox"))
        ).fetchall()
        assert found == [("worker",)]


def test_every_function_finds_its_tables_by_a_path_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        loose = connection.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace"
            # A body of standard SQL was bound when it was made.
            " AND p.prosqlbody IS NULL"
            " AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%pg_temp')"
        ).fetchall()
    assert loose == []
