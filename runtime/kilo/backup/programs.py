"""PostgreSQL's own programs: pg_dump, pg_dumpall, pg_restore, psql.

Connection details go to them by environment, never on their command lines. What they say of an error is
told by its ERROR line alone: the lines after it are context, in which there may be a row's values.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import cast

import psycopg

from kilo.errors import BadInput, CheckFailed

_READ_BYTES = 1024 * 1024
_ERROR = re.compile(r"\b(?:error|fatal|panic): ", re.IGNORECASE)
_VALUE = re.compile(r"(invalid (?:input|byte sequence)[^:\"]*: ).*")
_MOST_ERROR_BYTES = 256 * 1024


def dump(url: str, snapshot: str, *, under_policies: bool = False) -> Iterator[bytes]:
    """Run pg_dump on ``snapshot`` in its custom format and yield its output, large objects included.

    ``under_policies`` has it read tables as the policies of row-level security show them to its role.

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
            *(["--enable-row-security"] if under_policies else []),
        ],
        url,
    )


def dump_roles(url: str) -> Iterator[bytes]:
    """Run pg_dumpall for roles, without passwords: those are in the secrets manager.

    It connects to the database of ``url``, since a role for backups need not get into any other.
    """
    name = environment_of(url).get("PGDATABASE", "postgres")
    yield from run(
        ["pg_dumpall", "--roles-only", "--no-role-passwords", "--no-password", f"--database={name}"], url
    )


def run(argv: Sequence[str], url: str) -> Iterator[bytes]:
    """Run a PostgreSQL program against ``url`` and yield its output.

    Raises:
        BadInput: the program is not on PATH.
        CheckFailed: it failed; with its first error.
    """
    process = start(argv, url, stdout=subprocess.PIPE)
    errors: list[str] = []
    reader = collect_errors(process, errors)
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
            msg = f"{argv[0]} failed with exit code {code}: {first_error(errors)}"
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


def collect_errors(process: subprocess.Popen[bytes], lines: list[str]) -> threading.Thread:
    """Read a program's standard error into ``lines`` until it ends, and no more than a bounded part of it."""

    def read() -> None:
        left = _MOST_ERROR_BYTES
        for line in cast("Iterable[bytes]", process.stderr):
            left -= len(line)
            lines.extend([line.decode(errors="replace").strip()] if left > 0 else [])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader


def first_error(lines: Sequence[str]) -> str:
    """The first line that tells an error, without values that it may quote; else the last line."""
    told = next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "no message")
    return _VALUE.sub(r"\1…", told)


def one_line(error: Exception) -> str:
    """What a database error says, in one line; of a statement's its message alone, without its context."""
    told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return _VALUE.sub(r"\1…", " ".join((told or str(error)).split()))
