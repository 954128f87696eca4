"""The migrations of a service: its own .sql files, once each, recorded under the service's name.

As with the platform's own (:mod:`kilo.database.migrator`), a file that was changed after it ran is refused,
and two copies that run at once wait for each other. Left out on purpose: roles, which are the stage's, and
steps back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import psycopg
from psycopg import sql

from kilo.database.migrator import Migration, MigrationReport, check_unchanged
from kilo.errors import BadInput, Unreachable


def migrate_service(database_url: str, directory: Path, service: str) -> MigrationReport:
    """Run what is new in ``directory``, each file in a transaction with its record.

    Args:
        database_url: as a role that may make tables.
        directory: .sql files, run in the order of their names.
        service: whose they are; two services of one database don't meet.

    Raises:
        BadInput: a file that ran was changed since, or one fails; of those before it, all are done.
        Unreachable: the database does not answer.
    """
    files = [
        Migration(each.name, each.read_text(encoding="utf-8")) for each in sorted(directory.glob("*.sql"))
    ]
    table = sql.Identifier(f"{service.replace('-', '_')}_migrations")
    try:
        connection = psycopg.connect(database_url, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    with connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("SELECT pg_advisory_lock(%s)", (_lock(service),))
        connection.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, digest text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT now())"
            ).format(table)
        )
        rows = connection.execute(sql.SQL("SELECT name, digest FROM {}").format(table)).fetchall()
        done: dict[str, str] = dict(rows)
        applied: list[str] = []
        for each in files:
            if each.name in done:
                check_unchanged(each, done[each.name])
                continue
            try:
                with connection.transaction():
                    connection.execute(each.text.encode())
                    record = sql.SQL("INSERT INTO {} (name, digest) VALUES (%s, %s)").format(table)
                    connection.execute(record, (each.name, each.digest))
            except psycopg.Error as error:
                msg = f"migrations/{each.name}: {error.diag.message_primary or type(error).__name__}"
                raise BadInput(msg) from error
            applied.append(each.name)
    return MigrationReport(tuple(applied), len(done))


def _lock(service: str) -> int:
    """An advisory lock's number of the service's own."""
    digest = hashlib.sha256(f"kilo migrations of {service}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
