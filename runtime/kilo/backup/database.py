"""What is backed up: one database as it was at one moment.

A transaction exports its snapshot; pg_dump and the counting of rows both see the database through
it, so that the manifest says exactly what the dump holds. Connection details go to the PostgreSQL
programs by environment, never on their command lines.

A table's fingerprint is the sum of 64-bit hashes of its rows. It does not depend on row order, and it is
for finding a restore that went wrong; forging is what the manifest's signature is for. PostgreSQL hashes
rows as they are, by the functions that place rows in hash partitions and so give the same in every
version; a table that has a type without such a function (json, xml, point) is hashed as text, under
session settings that fix it, for two and a half times the processor time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, LiteralString, cast

import psycopg
from psycopg import sql

from kilo.backup.manifest import TableState
from kilo.errors import BadInput, CheckFailed, Unreachable

_READ_BYTES = 1024 * 1024
_CANONICAL_TEXT = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmloption = 'content'; "
    "SET default_transaction_isolation = 'repeatable read'; SET statement_timeout = 0; "
    "SET idle_in_transaction_session_timeout = 0; SET search_path = ''; "
    # A table whose rows this role may not all see is an error, as it is for pg_dump.
    "SET row_security = off"
)
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY 1, 2"""
_ROWS: dict[Literal["record", "text"], LiteralString] = {
    "record": "SELECT count(*), coalesce(sum(pg_catalog.hash_record_extended(t, 0)), 0)::text FROM ONLY {} t",
    "text": "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(t::text, 0)), 0)::text FROM ONLY {} t",
}
_LARGE_OBJECTS = """
SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(
    oid::text || pg_catalog.encode(pg_catalog.lo_get(oid), 'hex'), 0)), 0)::text
FROM pg_catalog.pg_largeobject_metadata"""
# What an extension brings is its own; plpgsql is in every new database.
_CONTENTS = r"""
SELECT what FROM (
  SELECT c.oid, 'pg_class'::regclass AS class, n.nspname AS schema,
    format('%I.%I', n.nspname, c.relname) AS what
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','v','m','S','f')
  UNION ALL SELECT p.oid, 'pg_proc'::regclass, n.nspname, format('function %I.%I', n.nspname, p.proname)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  UNION ALL SELECT t.oid, 'pg_type'::regclass, n.nspname, format('type %I.%I', n.nspname, t.typname)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e','d','r')
  UNION ALL SELECT n.oid, 'pg_namespace'::regclass, n.nspname, format('schema %I', n.nspname)
    FROM pg_namespace n WHERE n.nspname <> 'public'
  UNION ALL SELECT l.oid, 'pg_largeobject'::regclass, '', format('large object %s', l.oid)
    FROM pg_largeobject_metadata l
  UNION ALL SELECT e.oid, 'pg_extension'::regclass, '', format('extension %I', e.extname)
    FROM pg_extension e WHERE e.extname <> 'plpgsql'
) everything
WHERE schema NOT IN ('pg_catalog', 'information_schema') AND schema !~ '^pg_(toast|temp)'
  AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.objid = everything.oid AND d.classid = everything.class AND d.deptype = 'e')
ORDER BY 1 LIMIT 10"""
LARGE_OBJECTS = "large objects"


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the manifest says of the server."""

    database: str
    server_version: str
    schema_version: str
    lsn: str


class Snapshot:
    """An exported snapshot of a database; open while something reads through it."""

    def __init__(self, url: str, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self._connection = connection
        self.name = str(_value(connection, "SELECT pg_export_snapshot()"))
        self.state = ServerState(
            str(_value(connection, "SELECT current_database()")),
            str(_value(connection, "SHOW server_version")),
            _schema_version(connection),
            str(_value(connection, "SELECT pg_current_wal_lsn()")),
        )

    def count(self) -> dict[str, TableState]:
        """Count and fingerprint every table and the large objects, on a connection of its own."""
        with connect(self._url) as connection:
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self.name)))
            return count_tables(connection)


@contextmanager
def open_snapshot(url: str) -> Generator[Snapshot]:
    """Open a snapshot of the database at ``url`` for as long as the block runs.

    Raises:
        Unreachable: the database does not answer or refuses the login.
    """
    with connect(url) as connection:
        yield Snapshot(url, connection)


@contextmanager
def connect(url: str) -> Generator[psycopg.Connection[Any]]:
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
        msg = f"PostgreSQL: {_one_line(error)}"
        raise Unreachable(msg) from error
    with connection:
        connection.execute(_CANONICAL_TEXT)
        connection.autocommit = False
        yield connection


def count_tables(
    connection: psycopg.Connection[Any], expected: Mapping[str, TableState] | None = None
) -> dict[str, TableState]:
    """Count and fingerprint every table of the connection's database, and its large objects.

    What is in ``expected`` is hashed as it was there, so that both can be compared.

    Raises:
        CheckFailed: a table can't be read by this role.
    """
    found: dict[str, TableState] = {}
    known = expected or {}
    try:
        for schema, table in connection.execute(_TABLES).fetchall():
            name = f"{schema}.{table}"
            found[name] = _count(connection, sql.Identifier(schema, table), known.get(name))
        rows, fingerprint = cast("tuple[int, str]", connection.execute(_LARGE_OBJECTS).fetchone())
    except psycopg.Error as error:
        msg = f"counting rows for the manifest: {_one_line(error)}"
        raise CheckFailed(msg) from error
    if rows:
        found[LARGE_OBJECTS] = TableState(rows=rows, fingerprint=fingerprint, hashed="text")
    return found


def _count(
    connection: psycopg.Connection[Any], table: sql.Identifier, expected: TableState | None
) -> TableState:
    hashed: Literal["record", "text"] = expected.hashed if expected else "record"
    query = sql.SQL(_ROWS[hashed]).format(table)
    try:
        with connection.transaction():
            rows, fingerprint = cast("tuple[int, str]", connection.execute(query).fetchone())
    except psycopg.errors.UndefinedFunction:
        if hashed == "text":
            raise
        as_text = TableState(rows=0, fingerprint="", hashed="text")
        return _count(connection, table, as_text)
    return TableState(rows=rows, fingerprint=fingerprint, hashed=hashed)


def what_is_in(url: str) -> list[str]:
    """Name what somebody has put into the database, at most ten of it; empty for a new database.

    Raises:
        Unreachable: the database does not answer or refuses the login.
    """
    with connect(url) as connection:
        return [str(row[0]) for row in connection.execute(_CONTENTS).fetchall()]


def tables_in(url: str) -> set[str]:
    """The names of the database's tables, as manifests have them."""
    with connect(url) as connection:
        return {f"{schema}.{table}" for schema, table in connection.execute(_TABLES).fetchall()}


def dump(url: str, snapshot: str) -> Iterator[bytes]:
    """Run pg_dump on ``snapshot`` in its custom format and yield its output, large objects included.

    Raises:
        CheckFailed: pg_dump failed; raised at the end of its output, which is then incomplete.
    """
    # An eighth of the processor time that pg_dump's own choice, gzip, takes, and half of zstd's default.
    yield from run(
        [
            "pg_dump",
            "--format=custom",
            "--compress=zstd:1",
            "--large-objects",
            "--no-password",
            f"--snapshot={snapshot}",
        ],
        url,
    )


def dump_globals(url: str) -> Iterator[bytes]:
    """Run pg_dumpall for roles and tablespaces, without passwords: those are in the secrets manager."""
    yield from run(["pg_dumpall", "--globals-only", "--no-role-passwords", "--no-password"], url)


def run(argv: Sequence[str], url: str) -> Iterator[bytes]:
    """Run a PostgreSQL program against ``url`` and yield its output.

    Raises:
        BadInput: the program is not on PATH.
        CheckFailed: it failed; with its last line.
    """
    process = start(argv, url, stdout=subprocess.PIPE)
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.extend(cast("Any", process.stderr)), daemon=True)
    reader.start()
    try:
        assert process.stdout is not None  # noqa: S101 - piped above
        # Unbuffered: read as much as is there, rather than copy it together, and let more be there.
        with suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _READ_BYTES)
        while piece := _read(process.stdout.fileno()):
            yield piece
        code = process.wait()
        reader.join(5)
        if code != 0:
            last = b" ".join(errors[-3:]).decode(errors="replace").strip()
            msg = f"{argv[0]} failed with exit code {code}: {last}"
            raise CheckFailed(msg)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _read(descriptor: int) -> bytes:
    """Read :data:`_READ_BYTES`, fewer only at the end."""
    buffer = bytearray(_READ_BYTES)
    length = 0
    while length < _READ_BYTES and (count := os.readv(descriptor, [memoryview(buffer)[length:]])):
        length += count
    return bytes(memoryview(buffer)[:length])


def start(
    argv: Sequence[str], url: str, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a PostgreSQL program with ``url``'s connection in its environment; stderr is piped.

    Raises:
        BadInput: the program is not on PATH.
    """
    program = shutil.which(argv[0])
    if program is None:
        msg = (
            f"{argv[0]} is not on PATH; install PostgreSQL's client programs of the server's version or newer"
        )
        raise BadInput(msg)
    return subprocess.Popen(
        [program, *argv[1:]],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment_of(url),
    )


def environment_of(url: str) -> dict[str, str]:
    """The libpq environment variables that say what ``url`` says.

    https://www.postgresql.org/docs/current/libpq-envars.html
    """
    options = psycopg.pq.Conninfo.parse(url.encode())
    return {
        option.envvar.decode(): option.val.decode()
        for option in options
        if option.envvar and option.val is not None
    }


def _value(connection: psycopg.Connection[Any], query: Any) -> object:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _schema_version(connection: psycopg.Connection[Any]) -> str:
    """The last migration that ran; empty where the database has none."""
    if _value(connection, "SELECT to_regclass('public.kilo_migrations')") is None:
        return ""
    return str(_value(connection, "SELECT max(name) FROM public.kilo_migrations") or "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
