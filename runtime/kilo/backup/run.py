"""Taking a backup, and completing one that only one store has."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from kilo.backup import cipher, database, programs
from kilo.backup.definitions import SCHEMA
from kilo.backup.failures import mark_failure
from kilo.backup.fanout import Outcome, Pipe, fan_out
from kilo.backup.keys import BackupKey, DataKey
from kilo.backup.locks import check_lock
from kilo.backup.manifest import MANIFESTS, OBJECTS, Encryption, Manifest, ObjectState, heads, next_place
from kilo.backup.signatures import Signer
from kilo.backup.stores import Lock, Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, KiloError, Unreachable

DUMP = "database.dump"
GLOBALS = "globals.sql"
_SEED_BITS = 53
"""What a number of canonical JSON holds exactly (RFC 8785)."""

Progress = Callable[[str, int], None]
"""Called with an object's name and the bytes sent of it so far."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What one store has of a backup. ``lock`` says how its lock was shown; ``error`` why it has none."""

    store: str
    where: str
    lock: str
    error: KiloError | None

    def document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "store": self.store,
            "where": self.where,
            "lock": self.lock,
            "error": str(self.error) if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A backup that at least one store has."""

    manifest: Manifest
    stores: tuple[StoreResult, ...]

    @property
    def whole(self) -> bool:
        """Whether every store has it, locked."""
        return all(result.error is None for result in self.stores)


class _Meter:
    """Counts and hashes a stream on its way."""

    def __init__(self, report: Callable[[int], None] = lambda _: None) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._report = report

    def pass_through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)
            self._report(self.size)
            yield piece

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class _Run:
    """One backup under way: which stores still take part."""

    def __init__(self, outputs: StackOutputs, stores: dict[str, Store], backup_id: str, key: DataKey) -> None:
        self.buckets = outputs.backups.buckets
        self.stores = dict(stores)
        self.errors: dict[str, KiloError] = {}
        self.locks: dict[str, str] = {}
        self._id = backup_id
        self._key = key

    def store(self, name: str, plaintext: Iterable[bytes], report: Progress) -> ObjectState:
        """Encrypt an object and send it to every store that still takes part."""
        key = f"{OBJECTS}{self._id}/{name}"
        sealed = _Meter(lambda size: report(name, size))
        plaintext_size = 0

        def counted() -> Iterator[bytes]:
            nonlocal plaintext_size
            for piece in plaintext:
                plaintext_size += len(piece)
                yield piece

        pieces = sealed.pass_through(cipher.encrypt(self._key.plaintext, name, counted()))
        self._note(fan_out(pieces, {store: self._writer(store, key) for store in self.stores}))
        return ObjectState(
            key=key,
            size=sealed.size,
            sha256=sealed.sha256,
            plaintext_size=plaintext_size,
        )

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest to every store that has all objects."""
        self._note(fan_out([manifest.content()], {s: self._writer(s, manifest.key()) for s in self.stores}))

    def _writer(self, store: str, key: str) -> Callable[[Pipe], Lock]:
        return lambda pipe: self.stores[store].create(key, pipe)

    def _note(self, outcomes: dict[str, Outcome[Lock]]) -> None:
        for name, outcome in outcomes.items():
            if outcome.error is not None:
                self.errors[name] = outcome.error
                del self.stores[name]
            elif outcome.result is not None and name not in self.errors:
                try:
                    self.locks[name] = check_lock(self.stores[name], self.buckets[name], outcome.result)
                except CheckFailed as error:
                    self.errors[name] = error


def run_backup(
    outputs: StackOutputs,
    stores: dict[str, Store],
    url: str,
    *,
    report: Progress = lambda _name, _size: None,
) -> BackupResult:
    """Back the database at ``url`` up to both stores.

    Raises:
        KiloError: no store has the backup: the key was denied, the database or both stores could
            not be reached, or pg_dump failed. A mark of it is left in the stores that take it.
    """
    try:
        return _run_backup(outputs, stores, url, report)
    except KiloError as error:
        mark_failure(stores, error)
        raise


def _run_backup(outputs: StackOutputs, stores: dict[str, Store], url: str, report: Progress) -> BackupResult:
    begun = time.monotonic()
    now = datetime.now(UTC)
    backup_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    context = {"purpose": "backup", "stage": outputs.stage, "backup": backup_id}
    seed = secrets.randbits(_SEED_BITS)
    backup_key, signer = BackupKey(outputs.backups), Signer(outputs.backups)
    data_key = backup_key.make(context)
    # What would refuse the manifest in the end shall refuse it before the dump.
    signer.sign("run", backup_id.encode())
    run = _Run(outputs, stores, backup_id, data_key)
    previous = heads(_manifest_keys(run))
    with database.open_snapshot(url) as snapshot, ThreadPoolExecutor(1) as executor:
        snapshot_at = datetime.now(UTC)
        fingerprints = executor.submit(snapshot.fingerprint_tables, seed)
        objects = {
            DUMP: run.store(
                DUMP, programs.dump(url, snapshot.name, under_policies=snapshot.under_policies), report
            ),
            GLOBALS: run.store(GLOBALS, programs.dump_roles(url), report),
        }
        definitions = snapshot.definitions_after_dump()
        objects[SCHEMA] = run.store(SCHEMA, [definitions.content()], report)
        tables = fingerprints.result()
    manifest = Manifest(
        id=backup_id,
        sequence=next_place(previous),
        previous=tuple(head.key for head in previous),
        stage=outputs.stage,
        database=snapshot.state.database,
        snapshot_at=snapshot_at,
        finished_at=datetime.now(UTC),
        duration_seconds=round(time.monotonic() - begun, 3),
        server_version=snapshot.state.server_version,
        schema_version=snapshot.state.schema_version,
        lsn=snapshot.state.lsn,
        bootstrap_role=snapshot.state.bootstrap_role,
        locale=snapshot.state.locale,
        fingerprint_seed=seed,
        definitions=definitions.states(),
        tables=tables,
        objects=objects,
        encryption=Encryption(
            algorithm=cipher.ALGORITHM, key=backup_key.arn, context=context, wrapped_key=data_key.wrapped
        ),
    ).signed(signer)
    run.publish(manifest)
    return BackupResult(
        manifest,
        tuple(
            StoreResult(name, store.describe(), run.locks.get(name, "none"), run.errors.get(name))
            for name, store in stores.items()
        ),
    )


def complete(
    outputs: StackOutputs, source: Store, target_name: str, target: Store, manifest: Manifest
) -> str:
    """Copy a backup that only ``source`` has to ``target``, its manifest last.

    Returns:
        How the lock was shown.

    Raises:
        CheckFailed: the source's objects are not what the manifest says, or the target does not lock.
        StoreError: a store failed.
    """
    held = {entry.key for entry in target.list(f"{OBJECTS}{manifest.id}/")}
    for state in manifest.objects.values():
        if state.key not in held:
            meter = _Meter()
            checked = _checked(meter, meter.pass_through(source.read(state.key)), state)
            fan_out(checked, {target_name: lambda pipe, key=state.key: target.create(key, pipe)})
    written = fan_out([manifest.content()], {target_name: lambda pipe: target.create(manifest.key(), pipe)})
    lock = written[target_name].result
    if lock is None:
        msg = f"{target.describe()}: no lock was read back"
        raise Unreachable(msg)
    return check_lock(target, outputs.backups.buckets[target_name], lock)


def _checked(meter: _Meter, pieces: Iterable[bytes], state: ObjectState) -> Iterator[bytes]:
    yield from pieces
    if (meter.size, meter.sha256) != (state.size, state.sha256):
        msg = f"{state.key}: its content is not what the manifest says; not copied"
        raise CheckFailed(msg)


def _manifest_keys(run: _Run) -> set[str]:
    """The manifests that any store knows. A store that can't be listed is left out of the run."""
    found: set[str] = set()
    for name, store in list(run.stores.items()):
        try:
            found |= {entry.key for entry in store.list(MANIFESTS)}
        except (KiloError, KeyError) as error:
            run.errors[name] = (
                error if isinstance(error, KiloError) else Unreachable(f"{store.describe()}: no such bucket")
            )
            del run.stores[name]
    if not run.stores:
        raise next(iter(run.errors.values()))
    return found
