"""Restoring a backup: streamed from a store through decryption into pg_restore, then compared.

pg_restore runs in one transaction, so a restore that breaks off leaves the target's tables as they
were; roles are created before it. That it exits with 0 is not taken for success: rows are counted and
fingerprinted again and held against the manifest.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kilo.backup import database
from kilo.backup.catalogue import plaintext
from kilo.backup.manifest import Manifest, TableState
from kilo.backup.run import DUMP, GLOBALS
from kilo.backup.stores import Store
from kilo.errors import BadInput, CheckFailed

_EXISTS = "already exists"


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore whose contents were compared with the manifest."""

    manifest: Manifest
    store: str
    duration_seconds: float
    tables: int
    rows: int


def restore(
    store: Store,
    manifest: Manifest,
    data_key: bytes,
    url: str,
    *,
    replace: bool = False,
    with_globals: bool = True,
    report: Callable[[str, int], None] = lambda _name, _size: None,
) -> Restored:
    """Restore ``manifest`` from ``store`` into the database at ``url``.

    Without ``with_globals`` roles are not created and nothing is owned by or granted to them. ``report``
    is called with an object's name and how many bytes of it are in.

    Raises:
        BadInput: the target is not empty and ``replace`` is not set, or it has tables that the backup
            does not know and would leave as they are.
        CheckFailed: an object is not genuine, pg_restore failed, or the contents differ.
        Unreachable: the store or the database does not answer.
    """
    begun = time.monotonic()
    _check_target(manifest, url, replace=replace)
    if with_globals:
        _restore_globals(plaintext(store, manifest, GLOBALS, data_key), url)
    argv = ["pg_restore", "--exit-on-error", "--single-transaction", "--no-password", "--format=custom"]
    argv += [] if with_globals else ["--no-owner", "--no-privileges"]
    argv += ["--clean", "--if-exists"] if replace else []
    argv += [f"--dbname={database.environment_of(url).get('PGDATABASE', 'postgres')}"]
    pieces = _reported(plaintext(store, manifest, DUMP, data_key), lambda size: report(DUMP, size))
    code, errors = _feed(argv, pieces, url)
    if code != 0:
        msg = f"pg_restore failed with exit code {code}: {errors[-1] if errors else 'no message'}"
        raise CheckFailed(msg)
    with database.connect(url) as connection:
        found = database.count_tables(connection, manifest.tables)
    compare(manifest, found)
    rows = sum(state.rows for state in found.values())
    return Restored(manifest, store.describe(), round(time.monotonic() - begun, 3), len(found), rows)


def _check_target(manifest: Manifest, url: str, *, replace: bool) -> None:
    found = database.what_is_in(url)
    if found and not replace:
        msg = (
            f"the target database is not empty: {_named(found)}; "
            "name an empty one, or say --replace to drop what is in it"
        )
        raise BadInput(msg)
    foreign = sorted(database.tables_in(url) - manifest.tables.keys()) if found else []
    if foreign:
        msg = (
            f"the target database has what backup {manifest.id} does not: {_named(foreign)}; "
            "--replace drops only what the backup has, so restore into an empty database"
        )
        raise BadInput(msg)


def _named(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (" and more" if len(names) > limit else "")


def compare(manifest: Manifest, found: dict[str, TableState]) -> None:
    """Hold what a restored database has against the manifest.

    Raises:
        CheckFailed: a table is missing or too many, or has other rows; the first few are named.
    """
    wrong: list[str] = []
    for name in sorted(manifest.tables.keys() | found.keys()):
        expected, actual = manifest.tables.get(name), found.get(name)
        if expected is None or actual is None:
            wrong.append(f"{name} is {'missing' if actual is None else 'not in the manifest'}")
        elif expected.rows != actual.rows:
            wrong.append(f"{name} has {actual.rows} rows instead of {expected.rows}")
        elif expected != actual:
            wrong.append(f"{name} has other contents")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        msg = f"backup {manifest.id}: restored, but {'; '.join(wrong[:5])}{more}"
        raise CheckFailed(msg)


def _reported(pieces: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        report(size)


def _restore_globals(pieces: Iterable[bytes], url: str) -> None:
    """Create roles; those that exist stay as they are."""
    _, errors = _feed(["psql", "--no-psqlrc", "--quiet", "--no-password"], pieces, url)
    real = [line for line in errors if "ERROR" in line and _EXISTS not in line]
    if real:
        msg = f"restoring roles failed: {real[0]}; --no-globals restores without them"
        raise CheckFailed(msg)


def _feed(argv: list[str], pieces: Iterable[bytes], url: str) -> tuple[int, list[str]]:
    """Run a program with ``pieces`` on its standard input; its exit code and error lines."""
    process = database.start(argv, url, stdin=subprocess.PIPE)
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(cast("Any", process.stderr)), daemon=True)
    reader.start()
    try:
        assert process.stdin is not None  # noqa: S101 - piped above
        try:
            for piece in pieces:
                process.stdin.write(piece)
            process.stdin.close()
        except BrokenPipeError:
            # It has failed; its own words say why.
            pass
        code = process.wait()
    finally:
        if process.poll() is None:
            # Killed before it sees an end of input, so that it can't commit what broke off.
            process.kill()
            process.wait()
    reader.join(5)
    return code, [line.decode(errors="replace").strip() for line in lines]
