"""``kilo backup``: take, list, check, restore, drill and prune backups."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace as replace_fields
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import (
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from kilo.backup.catalogue import Entry, Opened, open_newest, read_catalogue, read_manifest
from kilo.backup.drill import drill as run_drill
from kilo.backup.drill import keep_evidence
from kilo.backup.exporter import Exporter
from kilo.backup.keys import BackupKey
from kilo.backup.locks import is_over
from kilo.backup.prune import prune as run_prune
from kilo.backup.restore import restore as run_restore
from kilo.backup.run import complete as run_complete
from kilo.backup.run import run_backup
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store, open_replica, open_stores
from kilo.backup.verify import Verification
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address
from kilo.errors import BadInput, CheckFailed, KiloError, Unreachable
from kilo.health import HealthServer
from kilo.service import log_start
from kilo.tables import print_table

app = typer.Typer(help="Take backups into both stores and drill the restore.", no_args_is_help=True)

_URL_VARIABLE = "DATABASE_URL"
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_Id = Annotated[
    str | None, typer.Argument(metavar="[BACKUP]", help="A backup's id; the newest if not given.")
]


@app.command(
    epilog="Example: DATABASE_URL=postgresql://… kilo backup run · exit code 1: one store has no copy yet"
)
def run(as_json: _Json = False) -> None:
    """Dump the database of DATABASE_URL once, encrypted, to both stores."""
    outputs, stores = _open()
    url = _database_url()
    with _reporting(as_json) as report:
        result = run_backup(outputs, stores, url, report=report)
    manifest = result.manifest
    if as_json:
        document = {
            "backup": manifest.id,
            "key": manifest.key(),
            "size_bytes": manifest.size,
            "duration_seconds": manifest.duration_seconds,
            "tables": len(manifest.tables),
            "rows": sum(state.rows for state in manifest.tables.values()),
            "lsn": manifest.lsn,
            "stores": [store.document() for store in result.stores],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        stored = [(store.store, store.where, store.lock, store.error or "") for store in result.stores]
        print_table(("store", "where", "lock", "problem"), stored, title=f"backup {manifest.id}")
        rows = sum(state.rows for state in manifest.tables.values())
        typer.echo(
            f"{manifest.size / 1e6:.1f} MB in {manifest.duration_seconds:.1f} s: "
            f"{len(manifest.tables)} tables, {rows} rows, at {manifest.lsn}"
        )
    failed = [store for store in result.stores if store.error is not None]
    if failed:
        msg = f"backup {manifest.id}: {failed[0].store}: {failed[0].error}; kilo backup complete finishes it"
        raise CheckFailed(msg)


@app.command(name="list", epilog="Example: kilo backup list --json")
def list_backups(as_json: _Json = False) -> None:
    """List the backups of both stores, oldest first."""
    outputs, stores = _open()
    verifier = Verifier(outputs.backups)
    catalogue = read_catalogue(stores)
    rows: list[dict[str, object]] = []
    errors = list(catalogue.errors.values())
    for entry in catalogue.entries:
        row: dict[str, object] = {
            "backup": entry.key.id,
            "place": entry.key.sequence,
            "stores": list(entry.stores),
        }
        try:
            manifest = read_manifest(stores[entry.stores[0]], entry.key, verifier)
        except KiloError as error:
            errors.append(error)
            row |= {"taken": None, "size_bytes": None, "rows": None, "error": str(error)}
        else:
            row |= {
                "taken": manifest.snapshot_at.isoformat(timespec="seconds"),
                "size_bytes": manifest.size,
                "rows": sum(state.rows for state in manifest.tables.values()),
                "error": None,
            }
        rows.append(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        # Made for 80 columns: the id says when it was taken.
        lines: list[tuple[str, ...]] = []
        for row in rows:
            size = "" if row["size_bytes"] is None else f"{int(str(row['size_bytes'])) / 1e6:.1f}"
            held = [name for name in stores if name in str(row["stores"])]
            counted = "not readable" if row["rows"] is None else str(row["rows"])
            kept_in = "both" if len(held) == len(stores) else ", ".join(held)
            lines.append((str(row["backup"]), str(row["place"]), size, counted, kept_in))
        print_table(("backup", "place", "MB", "rows", "stores"), lines, numbers=("MB", "rows"))
    _raise_first(errors)


@app.command(epilog="Examples: kilo backup verify · kilo backup verify 20260216T021500Z-3fa1c2 --json")
def verify(
    backup: _Id = None,
    every: Annotated[bool, typer.Option("--all", help="Every backup, not just one.")] = False,
    as_json: _Json = False,
) -> None:
    """Read backups whole from both stores: genuine, equal, locked, and in an unbroken chain."""
    outputs, stores = _open()
    catalogue = read_catalogue(stores)
    chosen: Sequence[Entry] = catalogue.entries if every else [catalogue.find(backup)]
    key = BackupKey(outputs.backups)
    with _reporting(as_json) as report:
        verification = Verification(outputs.backups, stores, catalogue, key, report)
        checks = [check for entry in chosen for check in verification.check(entry)]
    if as_json:
        typer.echo(json.dumps([check.document() for check in checks], indent=2))
    else:
        found = [(check.backup, check.store, check.subject, check.error or check.detail) for check in checks]
        print_table(("backup", "store", "what", "finding"), found)
    _raise_first([check.error for check in checks if check.error is not None])


@app.command(
    epilog="Example: kilo backup restore --to postgresql://admin@db.example.com/empty --from secondary"
)
def restore(
    backup: _Id = None,
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="URL", envvar="KILO_RESTORE_URL", help="The target database.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STORE",
            help="primary, secondary or replica; if not given, whichever has it.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop what the target has of the backup.")
    ] = False,
    no_globals: Annotated[
        bool, typer.Option("--no-globals", help="Create no roles; the connecting role owns all.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Restore a backup into an empty database and compare its contents with the manifest."""
    outputs, stores = _open()
    store, opened = _find_backup(outputs, _sources(outputs, stores, source), backup)
    for error in opened.passed_over:
        typer.echo(f"passed over: {error}", err=True)
    manifest = opened.manifest
    with _reporting(as_json) as report:
        restored = run_restore(
            store, manifest, opened.data_key, to, replace=replace, with_globals=not no_globals, report=report
        )
    if as_json:
        document = {
            "backup": manifest.id,
            "store": restored.store,
            "duration_seconds": restored.duration_seconds,
            "tables": restored.tables,
            "rows": restored.rows,
            "left_out": list(restored.left_out),
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(
            f"{manifest.id} restored from {restored.store} in {restored.duration_seconds:.1f} s; "
            f"{restored.tables} tables and {restored.rows} rows equal the manifest"
        )
        for what in restored.left_out:
            typer.echo(f"not restored: {what}")


@app.command(epilog="Example: kilo backup drill --json")
def drill(backup: _Id = None, as_json: _Json = False) -> None:
    """Restore the newest backup of each store into an empty scratch server and prove its contents."""
    outputs, stores = _open()
    with _progress(as_json) as progress:
        progress.add_task("drilling", total=None)
        results = run_drill(stores, Verifier(outputs.backups), BackupKey(outputs.backups), backup)
        errors = keep_evidence(stores, results)
    if as_json:
        typer.echo(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
    else:
        numbers = ("recovery time", "recovery point", "tables", "rows")
        rows = [
            (
                result.store,
                result.backup,
                f"{result.recovery_time_seconds:.1f} s",
                f"{result.recovery_point_seconds:.0f} s",
                result.tables,
                result.rows,
                result.error or "",
            )
            for result in results
        ]
        print_table(("store", "backup", *numbers, "problem"), rows, numbers=numbers)
        for note in dict.fromkeys(f"{result.store}: {note}" for result in results for note in result.notes):
            typer.echo(note)
    failed = [result for result in results if result.error]
    if failed:
        msg = f"the drill from {failed[0].store} failed: {failed[0].error}"
        raise CheckFailed(msg)
    _raise_first(errors)


@app.command(epilog="Example: kilo backup complete")
def complete(backup: _Id = None) -> None:
    """Copy backups that only one store has to the other, as long as their locks hold."""
    outputs, stores = _open()
    verifier = Verifier(outputs.backups)
    catalogue = read_catalogue(stores)
    chosen = catalogue.entries if backup is None else [catalogue.find(backup)]
    _raise_first(list(catalogue.errors.values()))
    copied = 0
    for entry in chosen:
        source = stores[entry.stores[0]]
        made = entry.listed[entry.stores[0]].created_at
        for name in (name for name in stores if name not in entry.stores):
            if is_over(made, outputs.backups.buckets[name]):
                continue  # It may have been there, and expired first.
            manifest = read_manifest(source, entry.key, verifier)
            lock = run_complete(outputs, source, name, stores[name], manifest)
            typer.echo(f"{manifest.id} copied to {stores[name].describe()}, lock {lock}")
            copied += 1
    if not copied:
        typer.echo("nothing to complete")


@app.command(epilog="Example: kilo backup prune --older-than 35 --keep-last 7 --dry-run")
def prune(
    older_than: Annotated[int, typer.Option(min=1, metavar="DAYS", help="Remove backups older than this.")],
    keep_last: Annotated[int, typer.Option(min=1, help="Always keep so many of the newest.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    as_json: _Json = False,
) -> None:
    """Remove old backups; never a locked one, nor the last that a drill proved."""
    outputs, stores = _open()
    verifier = Verifier(outputs.backups)
    results = run_prune(stores, verifier, keep_days=older_than, keep_last=keep_last, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([result.document() for result in results], indent=2))
    else:
        outcomes = [(result.store, result.backup, result.outcome) for result in results]
        if outcomes:
            print_table(("store", "backup", "outcome"), outcomes)
        else:
            typer.echo("nothing to remove")
    _raise_first([result.error for result in results if result.error is not None])


@app.command(epilog="Example: KILO_OUTPUTS=outputs.json kilo backup exporter --port 10087")
def exporter(
    port: Annotated[int, typer.Option(help="Where health and metrics are served.")] = 10087,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How often to look.")] = 60,
) -> None:
    """Export metrics of what both stores have, until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    outputs, stores = _open()
    log_start(
        "backup-exporter",
        {
            "listens on": f"{bind_address()}:{port}",
            **{name: f"{store.provider}://{store.bucket}" for name, store in outputs.backups.buckets.items()},
        },
        {"seconds between looks": every},
    )
    registry = CollectorRegistry()
    exporting = Exporter(stores, Verifier(outputs.backups), registry)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with HealthServer(port, registry, lambda: exporting.ready):
        exporting.run(every, stopping)


def _open() -> tuple[StackOutputs, dict[str, Store]]:
    outputs = load_outputs()
    return outputs, open_stores(outputs.backups)


def _sources(outputs: StackOutputs, stores: dict[str, Store], name: str | None) -> dict[str, Store]:
    """The store of that name, or both."""
    if name is None:
        return stores
    if name == "replica":
        return {name: open_replica(outputs.backups)}
    if name in stores:
        return {name: stores[name]}
    msg = f"--from {name}: expected one of {', '.join(stores)}, replica"
    raise BadInput(msg)


def _find_backup(outputs: StackOutputs, stores: dict[str, Store], backup: str | None) -> tuple[Store, Opened]:
    """The backup of that id, or the newest genuine one, from the first store that has it."""
    verifier, key = Verifier(outputs.backups), BackupKey(outputs.backups)
    catalogue = read_catalogue(stores)
    catalogue.find(backup)
    problems = list(catalogue.errors.values())
    found: list[tuple[Store, Opened]] = []
    for name, store in stores.items():
        held = [
            entry for entry in catalogue.entries if name in entry.stores and backup in {None, entry.key.id}
        ]
        try:
            found += [(store, open_newest(store, verifier, key, held))] if held else []
        except KiloError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    store, opened = max(found, key=lambda each: (each[1].manifest.sequence, each[1].manifest.id))
    return store, replace_fields(opened, passed_over=(*problems, *opened.passed_over))


def _database_url() -> str:
    url = os.environ.get(_URL_VARIABLE)
    if not url:
        msg = f"{_URL_VARIABLE} is not set; it names the database to back up"
        raise BadInput(msg)
    return url


@contextmanager
def _reporting(quiet: bool) -> Generator[Callable[[str, int], None]]:
    """Show a line an object with the bytes that went through."""
    with _progress(quiet) as progress:
        tasks: dict[str, TaskID] = {}

        def report(name: str, size: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.update(tasks[name], completed=size)

        yield report


def _progress(quiet: bool) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet)


def _raise_first(errors: Sequence[KiloError]) -> None:
    """Raise what is worst: a failed check before a part that could not be reached."""
    if not errors:
        return
    failed = [error for error in errors if not isinstance(error, Unreachable)]
    raise (failed or list(errors))[0]
