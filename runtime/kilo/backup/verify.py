"""Checking what the stores have: same manifest, same bytes, genuine, locked, and a chain without gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kilo.backup.catalogue import Catalogue, Entry, NotThere, Opened, open_backup, plaintext, read_manifest
from kilo.backup.keys import BackupKey
from kilo.backup.locks import check_lock, is_over
from kilo.backup.manifest import OBJECTS, Manifest, ManifestKey
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import BackupOutputs
from kilo.errors import CheckFailed, KiloError

Progress = Callable[[str, int], None]
"""Called with an object's place and the bytes read of it so far."""


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


class Verification:
    """Reads backups whole from every store and checks them. Failures are in results, none is raised."""

    def __init__(
        self,
        outputs: BackupOutputs,
        stores: Mapping[str, Store],
        catalogue: Catalogue,
        key: BackupKey,
        report: Progress = lambda _place, _size: None,
    ) -> None:
        self._buckets = outputs.buckets
        self._stores = stores
        self._catalogue = catalogue
        self._key = key
        self._verifier = Verifier(outputs)
        self._report = report

    def check(self, entry: Entry) -> list[Check]:
        """Check one backup."""
        checks: list[Check] = []
        for name, store in self._stores.items():
            if name in self._catalogue.errors:
                checks.append(Check(entry.key.id, name, "store", "not listed", self._catalogue.errors[name]))
            elif name not in entry.stores and self._may_be_gone(entry, name):
                checks.append(Check(entry.key.id, name, "manifest", "gone: its lock is over"))
            elif name not in entry.stores:
                missing = CheckFailed(
                    f"{store.describe()}: has no backup {entry.key.id}; run kilo backup complete"
                )
                checks.append(Check(entry.key.id, name, "manifest", "missing", missing))
            else:
                checks += self._check_store(name, store, entry)
        return [*checks, self._check_chain(entry)]

    def _check_store(self, name: str, store: Store, entry: Entry) -> list[Check]:
        def check(subject: str, look: Callable[[], str]) -> Check:
            try:
                return Check(entry.key.id, name, subject, look())
            except (KeyError, NotThere) as error:
                if self._may_be_gone(entry, name):
                    return Check(entry.key.id, name, subject, "gone: its lock is over")
                absent = CheckFailed(f"{store.describe()}/{error.args[0]}: not there")
                return Check(entry.key.id, name, subject, "missing", absent)
            except KiloError as error:
                return Check(entry.key.id, name, subject, "wrong", error)

        try:
            opened = open_backup(store, self._verifier, self._key, entry)
        except KiloError as error:
            return [Check(entry.key.id, name, "manifest", "not genuine", error)]
        manifest = opened.manifest
        checks = [Check(entry.key.id, name, "manifest", "genuine, signed")]
        checks += [
            check(part, lambda part=part: self._read(store, opened, part)) for part in manifest.objects
        ]
        for key in [*(state.key for state in manifest.objects.values()), manifest.key()]:
            checks.append(
                check(
                    f"lock of {key.rpartition('/')[2]}",
                    lambda key=key: check_lock(store, self._buckets[name], store.lock(key)),
                )
            )
        return [*checks, check("tampering", lambda: _check_tampering(store, manifest))]

    def _may_be_gone(self, entry: Entry, name: str) -> bool:
        made = max(info.created_at for info in entry.listed.values())
        return is_over(made, self._buckets[name])

    def _read(self, store: Store, opened: Opened, part: str) -> str:
        state, size = opened.manifest.objects[part], 0
        for piece in plaintext(store, opened.manifest, part, opened.data_key):
            size += len(piece)
            self._report(f"{store.describe()}/{part}", size)
        if size != state.plaintext_size:
            msg = f"{store.describe()}/{state.key}: decrypts to {size} bytes, not {state.plaintext_size}"
            raise CheckFailed(msg)
        return f"{state.size} bytes, SHA-256 and tags right"

    def _check_chain(self, entry: Entry) -> Check:
        """Every manifest that this one names must be there, as long as its lock holds."""
        name = entry.stores[0]
        try:
            manifest = read_manifest(self._stores[name], entry.key, self._verifier)
        except KiloError as error:
            return Check(entry.key.id, name, "chain", "not readable", error)
        known = {found.key.key for found in self._catalogue.entries}
        gone = [found for found in map(ManifestKey.parse, manifest.previous) if found]
        bucket = self._buckets["primary"]
        gaps = [
            each.key
            for each in gone
            # An invented manifest may claim any time; it was there before this one.
            if each.key not in known and not is_over(min(each.started_at, manifest.snapshot_at), bucket)
        ]
        if gaps:
            msg = f"backup {manifest.id}: the chain has a gap: {', '.join(gaps)} is in no store"
            return Check(entry.key.id, name, "chain", "gap", CheckFailed(msg))
        return Check(
            entry.key.id, name, "chain", f"place {manifest.sequence}, {len(manifest.previous)} before it"
        )


def _check_tampering(store: Store, manifest: Manifest) -> str:
    listed = [*store.list(f"{OBJECTS}{manifest.id}/"), *store.list(manifest.key())]
    covered = [f"{entry.key} is {entry.covered}" for entry in listed if entry.covered]
    if covered:
        msg = f"{store.describe()}: {'; '.join(covered)}; the lock has kept what was below, which is read"
        raise CheckFailed(msg)
    return "nothing was put on top"
