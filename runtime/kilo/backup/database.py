"""What is backed up: one database as it was at one moment.

A transaction exports its snapshot; pg_dump, the fingerprints and the definitions all see the database through
it, so that the manifest says exactly what the dump holds. Sequences alone know no snapshots.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from kilo.backup.definitions import Definitions, read_definitions, read_sequences
from kilo.backup.fingerprints import fingerprint_tables, list_tables
from kilo.backup.former import former_key
from kilo.backup.kinds import CONTENTS
from kilo.backup.locales import read_locale
from kilo.backup.manifest import Locale, TableState
from kilo.backup.programs import one_line
from kilo.backup.row_security import under_policies
from kilo.errors import BadInput, Unreachable

_SETTINGS = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmloption = 'content'; SET lc_monetary = 'C'; "
    "SET quote_all_identifiers = off; SET standard_conforming_strings = on; SET client_encoding = 'UTF8'; "
    "SET default_transaction_isolation = 'repeatable read'; SET statement_timeout = 0; "
    "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET search_path = ''; "
    # A table whose rows this role may not all see is an error, as it is for pg_dump.
    "SET row_security = off"
)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the manifest says of the server. ``bootstrap_role`` is the superuser that initdb made."""

    database: str
    server_version: str
    schema_version: str
    lsn: str
    bootstrap_role: str
    locale: Locale


class Snapshot:
    """An exported snapshot of a database; open while something reads through it.

    ``under_policies`` is whether reading whole tables takes policies of row-level security.
    """

    def __init__(self, url: str, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self._connection = connection
        self.name = str(_value(connection, "SELECT pg_export_snapshot()"))
        self.state = ServerState(
            database=str(_value(connection, "SELECT current_database()")),
            server_version=str(_value(connection, "SHOW server_version")),
            schema_version=_schema_version(connection),
            lsn=str(_value(connection, "SELECT pg_current_wal_lsn()")),
            bootstrap_role=str(_value(connection, "SELECT rolname FROM pg_roles WHERE oid = 10")),
            locale=read_locale(connection),
        )
        self._definitions = read_definitions(connection)
        with connect(url, autocommit=True) as now:
            self.under_policies = under_policies(connection, now, list_tables(connection))

    def fingerprint_tables(self, seed: int) -> dict[str, TableState]:
        """Count and fingerprint every table and the large objects, on a connection of its own."""
        with connect(self._url) as connection:
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self.name)))
            if self.under_policies:
                connection.execute("SET row_security = on")
            return fingerprint_tables(connection, seed)

    def definitions_after_dump(self) -> Definitions:
        """The definitions, with the sequences' values before the dump and now."""
        after = read_sequences(self._connection)
        before = self._definitions.sequences
        moved = {
            name: found.model_copy(update={"after": after[name][0]}) if name in after else found
            for name, found in before.items()
        }
        return self._definitions.model_copy(update={"sequences": moved})


@contextmanager
def open_snapshot(url: str) -> Generator[Snapshot]:
    """Open a snapshot of the database at ``url`` for as long as the block runs.

    Raises:
        Unreachable: the database does not answer or refuses the login.
        CheckFailed: its definitions can't be read by this role, or row-level security may hide rows from it.
    """
    with connect(url) as connection:
        yield Snapshot(url, connection)


@contextmanager
def connect(url: str, *, autocommit: bool = False) -> Generator[psycopg.Connection[Any]]:
    """Connect with the session settings under which fingerprints are made.

    Raises:
        Unreachable: the database does not answer or refuses the login.
        BadInput: the URL is not one.
    """
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="kilo backup")
    except psycopg.ProgrammingError as error:
        msg = "the database URL is no PostgreSQL connection string"
        raise BadInput(msg) from error
    except psycopg.OperationalError as error:
        msg = f"PostgreSQL: {one_line(error)}"
        raise Unreachable(msg) from error
    with connection:
        connection.execute(_SETTINGS)
        connection.autocommit = autocommit
        yield connection


def list_contents(connection: psycopg.Connection[Any]) -> list[str]:
    """Name what somebody has put into the database, at most ten of it; empty for a new database."""
    return [str(row[0]) for row in connection.execute(CONTENTS).fetchall()]


def list_table_names(connection: psycopg.Connection[Any], manifest_format: int) -> set[str]:
    """The names of the database's tables, as manifests of that format have them."""
    tables = list_tables(connection)
    return {former_key(table) if manifest_format == 2 else table.key for table in tables}


def _value(connection: psycopg.Connection[Any], query: Any) -> object:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _schema_version(connection: psycopg.Connection[Any]) -> str:
    """The last migration that ran; empty where the database has none."""
    # The stage chooses the schema, and a scratch database knows no stage.
    name = _value(
        connection,
        "SELECT min(oid::regclass::text) FROM pg_catalog.pg_class WHERE relname = 'kilo_migrations'"
        " AND relkind = 'r' AND pg_catalog.has_table_privilege(oid, 'SELECT')",
    )
    if name is None:
        return ""
    query = sql.SQL("SELECT max(name) FROM {}").format(sql.SQL(str(name)))  # pyright: ignore[reportArgumentType]
    return str(_value(connection, query) or "")
