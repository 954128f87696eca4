"""Runs the migrations: ordered .sql files, once each, under an advisory lock.

A file whose first line is ``-- kilo: no-transaction`` runs outside a transaction (CREATE INDEX
CONCURRENTLY); all others run in one of their own together with their record. A file that was changed
after it ran is refused: its record has the file's SHA-256.

All of it goes into one schema, which is the session's whole search_path: files name no schema, and their
functions take the path as it is (``SET search_path FROM CURRENT``). The first ones named ``public``, which is
rendered as the schema. A database has one such schema, for good.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql

from kilo.contract import DEFAULT_SCHEMA
from kilo.database.logins import end_logins
from kilo.database.roles import ROLES, apply_roles, apply_search_path
from kilo.errors import BadInput, Unreachable
from kilo.logins import Generation

_LOCK = 4_716_093_552_718_245_111
"""An advisory lock's number; any would do that nobody else takes."""

_RECORDS = "kilo_migrations"
_NO_TRANSACTION = "-- kilo: no-transaction"
_SCHEMA = re.compile(r"(?<=SCHEMA )public\b|(?<=search_path = )public\b")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a run did."""

    applied: tuple[str, ...]
    already_there: int
    logins_ended: tuple[str, ...] = ()


def migrations() -> list[Migration]:
    """The files of this package in the order of their numbers."""
    folder = resources.files("kilo.database").joinpath("migrations")
    files = [each for each in folder.iterdir() if each.name.endswith(".sql")]
    return [
        Migration(each.name, each.read_text(encoding="utf-8")) for each in sorted(files, key=lambda f: f.name)
    ]


def migrate(
    database_url: str,
    passwords: Mapping[str, str] | None = None,
    files: Sequence[Migration] | None = None,
    schema: str = DEFAULT_SCHEMA,
    generation: Generation | None = None,
) -> MigrationReport:
    """Bring the database at ``database_url`` to the newest schema; safe to run twice and in two copies.

    Args:
        database_url: an administrator's URL.
        passwords: the password of each login, by login; those left out keep theirs.
        files: the migrations, by default those of this package.
        schema: where the tables are; made when it is missing.
        generation: which logins the roles have; without it those that there are stay.

    Raises:
        BadInput: a migration that ran was changed since, one fails, the tables are in another schema, or
            what processes have now would be over before they have the next.
        Unreachable: the database does not answer.
    """
    name = sql.Identifier(schema).as_string()
    with open_database(database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        apply_roles(connection, passwords or {}, generation)
        _enter(connection, schema)
        known = migrations() if files is None else files
        if schema != DEFAULT_SCHEMA:
            report = apply_new(connection, known, _RECORDS, lambda text: _SCHEMA.sub(lambda _: name, text))
        else:
            report = apply_new(connection, known, _RECORDS)
        apply_search_path(connection, schema)
        # Last, so that whoever is shut out has nothing to wait for but its new password.
        ended = end_logins(connection, ROLES, generation) if generation else []
    return replace(report, logins_ended=tuple(ended))


def open_database(database_url: str) -> psycopg.Connection[Any]:
    """A connection for migrations, each statement a transaction of its own.

    Raises:
        Unreachable: the database does not answer.
    """
    try:
        connection = psycopg.connect(database_url, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    connection.execute("SET client_min_messages = warning")
    return connection


def apply_new(
    connection: psycopg.Connection[Any],
    files: Sequence[Migration],
    records: str,
    render: Callable[[str], str] = str,
) -> MigrationReport:
    """Run those of ``files`` that the table ``records`` has not; the caller holds a lock.

    Args:
        connection: of :func:`open_database`.
        files: in their order.
        records: the table's name; made when it is missing.
        render: makes what is run of a file's text.

    Raises:
        BadInput: a file that ran was changed since, or one fails; those before it are done.
    """
    table = sql.Identifier(records)
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, digest text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(table)
    )
    done = dict(connection.execute(sql.SQL("SELECT name, digest FROM {}").format(table)).fetchall())
    record = sql.SQL("INSERT INTO {} (name, digest) VALUES (%s, %s)").format(table)
    applied: list[str] = []
    for each in files:
        if each.name in done:
            _check_unchanged(each, done[each.name])
            continue
        _apply(connection, each, record, render(each.text))
        applied.append(each.name)
    return MigrationReport(tuple(applied), len(done))


def use_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    """Have an administrator's ``connection`` find the tables in ``schema``, and nothing elsewhere."""
    connection.execute(sql.SQL("SET search_path = {}, pg_temp").format(sql.Identifier(schema)))


def _enter(connection: psycopg.Connection[Any], schema: str) -> None:
    others = connection.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'kilo_migrations'"
        " AND relkind = 'r' AND relnamespace <> coalesce(to_regnamespace(quote_ident(%s)), 0)",
        (schema,),
    ).fetchone()
    if others:
        msg = (
            f"kilo:database.schema_name: '{schema}', but the tables are in the schema '{others[0]}' of this"
            " database; leave it at that, or give the stage a new database"
        )
        raise BadInput(msg)
    if connection.execute("SELECT to_regnamespace(quote_ident(%s))", (schema,)).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    use_schema(connection, schema)


def _check_unchanged(migration: Migration, digest: str) -> None:
    if migration.digest != digest:
        msg = (
            f"migrations/{migration.name}: changed after it was applied to this database; "
            "restore the file and put the change into a new one"
        )
        raise BadInput(msg)


def _apply(
    connection: psycopg.Connection[Any], migration: Migration, record: sql.Composed, text: str
) -> None:
    try:
        if migration.text.startswith(_NO_TRANSACTION):
            connection.execute(text.encode())
            connection.execute(record, (migration.name, migration.digest))
            return
        with connection.transaction():
            connection.execute(text.encode())
            connection.execute(record, (migration.name, migration.digest))
    except psycopg.Error as error:
        diagnostic = error.diag
        line = ""
        if diagnostic.statement_position:
            line = f" line {text[: int(diagnostic.statement_position)].count(chr(10)) + 1}"
        msg = f"migrations/{migration.name}{line}: {diagnostic.message_primary or error}"
        raise BadInput(msg) from error
