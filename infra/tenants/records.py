"""What a stage's database still has of a tenant: counted, and exported before its keys go.

Encrypted fields are exported as they lie there. Who is to read them afterwards decrypts them before the
keys are destroyed (``kilo fle decrypt``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from kilo.errors import BadInput, CheckFailed, Unreachable

EXPORTED = ("events", "projection", "dead_letters")
"""The tables that hold a tenant's data; outbox and inbox hold copies that age out by themselves."""

_OPEN = {
    "events not yet published": "SELECT count(*) FROM outbox WHERE tenant = %s AND dequeued_at IS NULL",
    "dead letters not yet replayed or discarded": (
        "SELECT count(*) FROM dead_letters WHERE tenant = %s AND state NOT IN ('replayed', 'discarded')"
    ),
    "events received in the last five minutes": (
        "SELECT count(*) FROM events WHERE tenant = %s AND received_at > now() - interval '5 minutes'"
    ),
}


@dataclass(frozen=True)
class Export:
    """A manifest of an export: rows and SHA-256 by table."""

    tenant: str
    rows: Mapping[str, int]
    digests: Mapping[str, str]


def manifest_of(folder: Path, tenant: str) -> Path:
    """The file that says what an export holds, written last."""
    return folder / f"{tenant}.manifest.json"


def still_open(url: str, tenant: str) -> dict[str, int]:
    """What has to be worked off before the tenant is drained; empty when it is.

    Raises:
        Unreachable: the database can't be asked.
    """
    with _connect(url) as connection:
        counts = {what: _count(connection, query, tenant) for what, query in _OPEN.items()}
    return {what: count for what, count in counts.items() if count}


def export(url: str, tenant: str, folder: Path) -> Export:
    """Write the tenant's rows as JSON lines, a file a table, all of one moment, and a manifest last.

    Raises:
        BadInput: the folder has an export already, or can't be written.
        Unreachable: the database can't be asked.
    """
    manifest = manifest_of(folder, tenant)
    if manifest.exists():
        msg = f"{manifest}: there is an export already; name another folder"
        raise BadInput(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        rows: dict[str, int] = {}
        digests: dict[str, str] = {}
        with _connect(url) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for table in EXPORTED:
                query = sql.SQL("COPY (SELECT row_to_json(t) FROM {} t WHERE tenant = {}) TO STDOUT").format(
                    sql.Identifier(table), sql.Literal(tenant)
                )
                rows[table], digests[table] = _copy(connection, query, folder / f"{tenant}.{table}.jsonl")
        found = Export(tenant, rows, digests)
        manifest.write_text(json.dumps(vars(found), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        msg = f"{folder}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
    return found


def check_export(url: str, tenant: str, folder: Path) -> Export:
    """The export in ``folder``, its files whole and the database without a row more.

    Raises:
        BadInput: there is no export of the tenant.
        CheckFailed: a file differs from its manifest, or the database has gone on since.
        Unreachable: the database can't be asked.
    """
    manifest = manifest_of(folder, tenant)
    try:
        found = Export(**json.loads(manifest.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        msg = f"{manifest}: no export of {tenant} ({error}); the walk's export step writes one"
        raise BadInput(msg) from error
    for table, digest in found.digests.items():
        file = folder / f"{tenant}.{table}.jsonl"
        if not file.exists() or _digest(file) != digest:
            msg = f"{file}: not what its manifest says; export again into another folder"
            raise CheckFailed(msg)
    with _connect(url) as connection:
        for table, rows in found.rows.items():
            query = sql.SQL("SELECT count(*) FROM {} WHERE tenant = %s").format(sql.Identifier(table))
            now = _count(connection, query, tenant)
            if now != rows:
                msg = f"{table}: {now} rows of {tenant}, {rows} exported; export again into another folder"
                raise CheckFailed(msg)
    return found


def _copy(connection: psycopg.Connection, query: sql.Composed, file: Path) -> tuple[int, str]:
    rows, digest = 0, hashlib.sha256()
    with connection.cursor() as cursor, cursor.copy(query) as copy, file.open("xb") as target:
        for chunk in copy:
            # COPY's text format doubles backslashes, of which JSON is full.
            line = bytes(chunk).replace(b"\\\\", b"\\")
            target.write(line)
            digest.update(line)
            rows += line.count(b"\n")
    return rows, digest.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _count(connection: psycopg.Connection, query: str | sql.Composed, tenant: str) -> int:
    row = connection.execute(query, (tenant,)).fetchone()  # pyright: ignore[reportArgumentType]
    return int(row[0]) if row else 0


def _connect(url: str) -> psycopg.Connection:
    try:
        return psycopg.connect(url, connect_timeout=10)
    except psycopg.OperationalError as error:
        msg = f"DATABASE_URL: the database can't be reached: {str(error).strip().splitlines()[0]}"
        raise Unreachable(msg) from error
