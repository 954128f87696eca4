"""Checking what the stores have: same manifest, same bytes, genuine, locked, and a chain without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.backup.catalogue import Catalogue, Entry, plaintext, read_manifest, unwrap_data_key
from runtime.backup.keys import BackupKey
from runtime.backup.locks import PROVEN, UNPROVEN
from runtime.backup.manifest import Manifest
from runtime.backup.stores import Store
from runtime.errors import CheckFailed, KiloError


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one backup in one store; ``error`` None means that it held."""

    backup: str
    store: str
    subject: str
    detail: str
    error: KiloError | None = None

    def document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "backup": self.backup,
            "store": self.store,
            "subject": self.subject,
            "detail": self.detail,
            "ok": self.error is None,
            "error": str(self.error) if self.error else None,
        }


def verify(stores: Mapping[str, Store], catalogue: Catalogue, entry: Entry, key: BackupKey) -> list[Check]:
    """Read the backup whole from every store and check it. Failures are in the result, none is raised."""
    checks: list[Check] = []
    for name, store in stores.items():
        if name in catalogue.errors:
            checks.append(Check(entry.key.id, name, "store", "not listed", catalogue.errors[name]))
        elif name not in entry.stores:
            missing = CheckFailed(
                f"{store.describe()}: has no backup {entry.key.id}; run kilo backup complete"
            )
            checks.append(Check(entry.key.id, name, "manifest", "missing", missing))
        else:
            checks += _verify_store(name, store, entry, key)
    checks += _verify_chain(stores, catalogue, entry)
    return checks


def _verify_store(name: str, store: Store, entry: Entry, key: BackupKey) -> list[Check]:
    checks: list[Check] = []
    try:
        manifest = read_manifest(store, entry.key)
        data_key = unwrap_data_key(key, manifest)
    except KiloError as error:
        return [Check(entry.key.id, name, "manifest", "not genuine", error)]
    checks.append(Check(entry.key.id, name, "manifest", "genuine, sealed"))
    for object_name, state in manifest.objects.items():
        try:
            size = sum(len(piece) for piece in plaintext(store, manifest, object_name, data_key))
            if size != state.plaintext_size:
                msg = f"{store.describe()}/{state.key}: decrypts to {size} bytes, not {state.plaintext_size}"
                raise CheckFailed(msg)
            checks.append(
                Check(entry.key.id, name, object_name, f"{state.size} bytes, SHA-256 and tags right")
            )
        except KiloError as error:
            checks.append(Check(entry.key.id, name, object_name, "wrong", error))
    checks += [_verify_lock(name, store, manifest, key_) for key_ in _keys(manifest)]
    return checks


def _verify_lock(name: str, store: Store, manifest: Manifest, key: str) -> Check:
    subject = f"lock of {key.rpartition('/')[2]}"
    try:
        lock = store.lock(key)
        if lock.until is None:
            mode, days = store.configured_lock()
            if mode == "unknown":
                return Check(
                    manifest.id, name, subject, f"{UNPROVEN}: the store is an emulator without locks"
                )
            if not days:
                msg = f"{store.describe()}/{key}: not locked"
                raise CheckFailed(msg)
            return Check(
                manifest.id, name, subject, f"configured: {mode}, {days} days (not shown on the object)"
            )
        state = "until" if lock.until > datetime.now(UTC) else "expired"
        return Check(manifest.id, name, subject, f"{PROVEN}: {lock.mode} {state} {lock.until:%Y-%m-%d}")
    except KeyError:
        return Check(
            manifest.id, name, subject, "missing", CheckFailed(f"{store.describe()}/{key}: not there")
        )
    except KiloError as error:
        return Check(manifest.id, name, subject, "wrong", error)


def _verify_chain(stores: Mapping[str, Store], catalogue: Catalogue, entry: Entry) -> list[Check]:
    """Every manifest that this one names must be there, unless everything before it was pruned."""
    name = entry.stores[0]
    try:
        manifest = read_manifest(stores[name], entry.key)
    except KiloError as error:
        return [Check(entry.key.id, name, "chain", "not readable", error)]
    known = {found.key.key for found in catalogue.entries}
    oldest = min(found.key.sequence for found in catalogue.entries)
    gaps = [key for key in manifest.previous if key not in known]
    if gaps and manifest.sequence > oldest:
        msg = f"backup {manifest.id}: the chain has a gap: {', '.join(gaps)} is in no store"
        return [Check(entry.key.id, name, "chain", "gap", CheckFailed(msg))]
    return [
        Check(entry.key.id, name, "chain", f"place {manifest.sequence}, {len(manifest.previous)} before it")
    ]


def _keys(manifest: Manifest) -> list[str]:
    return [*(state.key for state in manifest.objects.values()), manifest.key()]
