"""Restoring a backup: streamed from a store through decryption into pg_restore, then compared.

pg_restore runs in one transaction, so a restore that breaks off leaves the target's tables as they
were; roles are created before it. That it exits with 0 is not taken for success: rows are counted and
fingerprinted again, every object's definition is read again, and both are held against the backup's.

A role that is no superuser, as on managed servers, restores what it may, and the rest is named: what only
superusers create is left out of pg_restore's list, owners and grants are set one by one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from psycopg import Connection

from kilo.backup import database, former, programs
from kilo.backup.catalogue import plaintext
from kilo.backup.defaults import unquoted
from kilo.backup.definitions import OF_ROLES, SCHEMA, Definitions, compare_definitions, read_definitions
from kilo.backup.fingerprints import fingerprint_tables
from kilo.backup.manifest import Manifest, TableState
from kilo.backup.privileges import membership_in_owners, restore_database, restore_privileges
from kilo.backup.roles import create_roles, role_names
from kilo.backup.run import DUMP, GLOBALS
from kilo.backup.stores import Store
from kilo.errors import BadInput, CheckFailed

_EXISTS = "already exists"
_OF_SUPERUSERS = (
    "ACCESS METHOD",
    "COMMENT - EXTENSION",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PUBLICATION TABLES IN SCHEMA",
    "SECURITY LABEL",
    "SUBSCRIPTION",
)
"""Entries of an archive that only superusers may make, or the owner of an extension."""
_MAY_DIFFER = OF_ROLES | {"comments", "database", "event triggers", "others", "policies", "publications"}
"""Kinds that a role which is no superuser can't always bring back."""
_MOST_ARCHIVE_LIST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore whose contents were compared with the manifest, and what the role could not restore."""

    manifest: Manifest
    store: str
    duration_seconds: float
    tables: int
    rows: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """What the database to restore into lets the connecting role do."""

    url: str
    superuser: bool
    major_version: int

    @classmethod
    def inspect(cls, connection: Connection[object], url: str) -> _Target:
        superuser = connection.info.parameter_status("is_superuser") == "on"
        return cls(url, superuser, connection.info.server_version // 10_000)


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
    definitions = _read_definitions(store, manifest, data_key)
    left_out: list[str] = []
    with database.connect(url, autocommit=True) as connection:
        target = _Target.inspect(connection, url)
        _check_target(connection, manifest, replace=replace)
        if with_globals and definitions:
            left_out += create_roles(connection, definitions.roles)
        roles = role_names(connection)
    if with_globals and not definitions:
        left_out += _restore_globals(plaintext(store, manifest, GLOBALS, data_key), url)
    pieces = _reported(plaintext(store, manifest, DUMP, data_key), lambda size: report(DUMP, size))
    in_person = with_globals and (target.superuser or definitions is None)
    with tempfile.TemporaryDirectory(prefix="kilo-restore-") as directory:
        argv = ["pg_restore", "--exit-on-error", "--single-transaction", "--no-password", "--format=custom"]
        argv += ["--no-tablespaces"]
        argv += [] if in_person else ["--no-owner", "--no-privileges"]
        argv += ["--clean", "--if-exists"] if replace else []
        argv += [f"--dbname={programs.environment_of(url).get('PGDATABASE', 'postgres')}"]
        if not target.superuser:
            chosen = Path(directory) / "list"
            left_out += _choose_entries(
                plaintext(store, manifest, DUMP, data_key), chosen, definitions, roles
            )
            argv += [f"--use-list={chosen}"]
        code, errors = _feed(argv, pieces, url)
    if code != 0:
        msg = f"pg_restore failed with exit code {code}: {programs.first_error(errors)}"
        raise CheckFailed(msg)
    with database.connect(url, autocommit=True) as connection, ExitStack() as stack:
        if definitions:
            left_out += [f"tablespace {name}: all is in the default one" for name in definitions.tablespaces]
            if with_globals and not in_person:
                stack.enter_context(membership_in_owners(connection, definitions))
                left_out += restore_privileges(connection, definitions)
            left_out += restore_database(connection, definitions.database, with_roles=with_globals)
        found, wrong = _compare(target, manifest, definitions, left_out, with_globals=with_globals)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        msg = f"backup {manifest.id}: restored, but {'; '.join(wrong[:5])}{more}"
        raise CheckFailed(msg)
    rows = sum(state.rows for state in found.values())
    took = round(time.monotonic() - begun, 3)
    return Restored(manifest, store.describe(), took, len(found), rows, tuple(left_out))


def _read_definitions(store: Store, manifest: Manifest, data_key: bytes) -> Definitions | None:
    """The definitions; None for a manifest of format 2, which has none."""
    if manifest.format == 2:
        return None
    content = b"".join(plaintext(store, manifest, SCHEMA, data_key))
    definitions = Definitions.parse(content, f"{store.describe()}/{manifest.objects[SCHEMA].key}")
    if definitions.states() != manifest.definitions:
        msg = f"backup {manifest.id}: {SCHEMA} is not what the manifest has the digests of"
        raise CheckFailed(msg)
    return definitions


def _check_target(connection: Connection[object], manifest: Manifest, *, replace: bool) -> None:
    found = database.list_contents(connection)
    if found and not replace:
        msg = (
            f"the target database is not empty: {_named(found)}; "
            "name an empty one, or say --replace to drop what is in it"
        )
        raise BadInput(msg)
    foreign = sorted(database.list_table_names(connection, manifest.format) - manifest.tables.keys())
    if foreign:
        msg = (
            f"the target database has what backup {manifest.id} does not: {_named(foreign)}; "
            "--replace drops only what the backup has, so restore into an empty database"
        )
        raise BadInput(msg)


def _named(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (" and more" if len(names) > limit else "")


def _compare(
    target: _Target,
    manifest: Manifest,
    definitions: Definitions | None,
    left_out: list[str],
    *,
    with_globals: bool,
) -> tuple[dict[str, TableState], list[str]]:
    """What the restored database has, and what is wrong with it; what the role could not restore is noted."""
    with database.connect(target.url) as connection:
        if definitions is None:
            found, unprovable = former.count_tables(connection, manifest.tables)
            return found, compare(manifest.tables, found, unprovable)
        found = fingerprint_tables(connection, manifest.fingerprint_seed)
        wrong = compare(manifest.tables, found)
        # Another major version has other words for the same.
        names_only = int(manifest.server_version.partition(".")[0]) != target.major_version
        but = frozenset[str]() if with_globals else OF_ROLES | {"database"}
        differing = compare_definitions(
            definitions, read_definitions(connection), but=but, names_only=names_only
        )
    for difference in differing:
        excused = not target.superuser and difference.partition(":")[0] in _MAY_DIFFER
        (left_out if excused else wrong).append(difference)
    return found, wrong


def compare(
    expected: dict[str, TableState], found: dict[str, TableState], unprovable: dict[str, str] | None = None
) -> list[str]:
    """What tables are missing, too many, have other rows, or have a fingerprint that does not tell."""
    wrong: list[str] = []
    for name in sorted(expected.keys() | found.keys()):
        before, after = expected.get(name), found.get(name)
        if unprovable and name in unprovable:
            wrong.append(f"{name} can't be proven by a manifest of format 2: {unprovable[name]}")
        elif before is None or after is None:
            wrong.append(f"{name} is {'missing' if after is None else 'not in the manifest'}")
        elif before.rows != after.rows:
            wrong.append(f"{name} has {after.rows} rows instead of {before.rows}")
        elif before != after:
            wrong.append(f"{name} has other contents")
    return wrong


def _reported(pieces: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        report(size)


def _restore_globals(pieces: Iterable[bytes], url: str) -> list[str]:
    """Create the roles of an older backup; those that exist stay as they are. Returns what was refused."""
    _, errors = _feed(["psql", "--no-psqlrc", "--quiet", "--no-password"], pieces, url)
    return [line for line in errors if "ERROR" in line and _EXISTS not in line]


def _choose_entries(
    pieces: Iterable[bytes], file: Path, definitions: Definitions | None, roles: set[str]
) -> list[str]:
    """Write pg_restore's list to ``file`` without what only superusers make. Returns what is left out."""
    with tempfile.TemporaryFile() as listed:
        code, errors = _feed(["pg_restore", "--list"], pieces, "", stdout=listed.fileno())
        if code != 0:
            msg = f"pg_restore failed with exit code {code}: {programs.first_error(errors)}"
            raise CheckFailed(msg)
        listed.seek(0)
        lines = (
            listed.read(_MOST_ARCHIVE_LIST_BYTES).decode(errors="surrogateescape").splitlines(keepends=True)
        )
    left_out: list[str] = []
    without_role = _policies_without_role(definitions, roles) if definitions else ()
    of_superusers = (*_OF_SUPERUSERS, *(_of_all_tables(definitions) if definitions else ()))
    with file.open("w", errors="surrogateescape") as chosen:
        for line in lines:
            # ID; CATALOGUE OID TYPE SCHEMA NAME OWNER
            told = line.partition("; ")[2].split(" ", 2)
            if len(told) == 3 and told[2].startswith(of_superusers):
                left_out.append(f"of superusers: {told[2].strip()}")
            elif len(told) == 3 and told[2].startswith(without_role):
                left_out.append(f"for a role that is missing: {told[2].strip()}")
            else:
                chosen.write(line)
    return left_out


def _of_all_tables(definitions: Definitions) -> Iterator[str]:
    """How the entries begin of publications of all tables, which are for superusers to make."""
    for name, told in definitions.kinds.get("publications", {}).items():
        if json.JSONDecoder().raw_decode(told)[0].get("puballtables"):
            yield f"PUBLICATION - {unquoted(name)} "


def _policies_without_role(definitions: Definitions, roles: set[str]) -> tuple[str, ...]:
    """How the entries begin of policies for roles that are missing, which CREATE POLICY would refuse."""
    found: list[str] = []
    for name, told in definitions.kinds.get("policies", {}).items():
        named: list[str] = json.JSONDecoder().raw_decode(told)[0]["roles"]
        policy, _, table = name.rpartition(" on ")
        if not {role.strip('"') for role in named} <= roles | {"public"}:
            found.append(f"POLICY {table.replace('.', ' ', 1)} {policy} ")
    return tuple(found)


def _feed(
    argv: list[str], pieces: Iterable[bytes], url: str, *, stdout: int = subprocess.DEVNULL
) -> tuple[int, list[str]]:
    """Run a program with ``pieces`` on its standard input; its exit code and error lines."""
    process = programs.start(argv, url, stdin=subprocess.PIPE, stdout=stdout)
    lines: list[str] = []
    reader = programs.collect_errors(process, lines)
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
    return code, lines
