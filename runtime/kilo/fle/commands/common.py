"""What the ``kilo fle`` commands share: reaching the stage, reading values, printing results."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput, Unreachable
from kilo.fle.cipher import FieldCipher
from kilo.tables import print_table

OutputsFile = Annotated[
    Path | None,
    typer.Option("--outputs", help="Stack outputs (JSON). Default: the file that KILO_OUTPUTS names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SigningKey = Annotated[Path, typer.Option("--signing-key", help="Your Ed25519 private key (PEM, PKCS #8).")]
Principal = Annotated[str, typer.Option("--as", help="Your name in the stage's field_encryption.principals.")]
PlanHash = Annotated[
    str, typer.Argument(metavar="PLAN", help="The plan's hash, or the first 8 or more of its characters.")
]


def database_url() -> str:
    """The database from DATABASE_URL; never a flag, since arguments are visible to every process."""
    url = os.environ.get("DATABASE_URL", "")
    if not url:
        msg = "DATABASE_URL: not set; it must name the database with the key table (postgresql://…)"
        raise BadInput(msg)
    return url


@contextmanager
def database() -> Generator[psycopg.Connection[TupleRow]]:
    """One transaction on the database; what can't be reached is one line, without the URL."""
    problem: str
    try:
        with psycopg.connect(database_url(), connect_timeout=5) as connection:
            yield connection
    except psycopg.OperationalError as error:
        problem = f"DATABASE_URL: the database can't be reached ({type(error).__name__})"
    except psycopg.errors.UndefinedTable:
        problem = "DATABASE_URL: the database lacks a table of this version; run `kilo db migrate`"
    else:
        return
    raise Unreachable(problem)


def as_dicts(cursor: psycopg.Cursor[TupleRow]) -> list[dict[str, Any]]:
    """The cursor's rows by column name."""
    names = [column.name for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def stage(outputs: Path | None) -> StackOutputs:
    """The stage's outputs."""
    return load_outputs(outputs)


def cipher(outputs: StackOutputs, table: str) -> FieldCipher:
    """A cipher with the stage's keys and the credentials of whoever calls."""
    return FieldCipher.from_outputs(outputs, database_url(), table=table, principal="cli")


def actor() -> str:
    """Who acts, where no signature says so: the workflow's actor, or the user of this machine."""
    return os.environ.get("GITHUB_ACTOR") or getpass.getuser()


def read_value() -> bytes:
    """Standard input, byte for byte. A person at a terminal is told how to end it."""
    if sys.stdin.isatty():
        typer.echo("Type the value, then Ctrl-D twice (Enter would be part of it):", err=True)
    return sys.stdin.buffer.read()


def read_blob() -> str:
    """An encrypted value from standard input; the line end that tools add is not part of it."""
    try:
        return read_value().decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        # What has other characters than ASCII is plain text; the parser says so in its own words.
        return "\N{REPLACEMENT CHARACTER}"


def read_key_file(path: Path) -> bytes:
    """A raw 32-byte key."""
    try:
        key = path.read_bytes()
    except OSError as error:
        msg = f"--key-file: {path} can't be read ({error.strerror})"
        raise BadInput(msg) from error
    if len(key) != 32:
        msg = f"--key-file: {path} has {len(key)} bytes; a key is 32 raw bytes (`openssl rand 32`)"
        raise BadInput(msg)
    return key


def write_bytes(data: bytes) -> None:
    """Standard output, byte for byte."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one result."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name, value in result.items():
        typer.echo(f"{name}: {value}")


def show_rows(title: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table."""
    if as_json:
        typer.echo(json.dumps(list(rows)))
        return
    if not rows:
        typer.echo(f"{title}: none")
        return
    print_table(list(rows[0]), [list(row.values()) for row in rows], title=title)
