"""The backups that the stores have, and reading one back, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kilo.backup import cipher
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import MANIFESTS, Manifest, ManifestKey, ObjectState, parse_manifest
from kilo.backup.signatures import Verifier
from kilo.backup.stores import ObjectInfo, Store
from kilo.errors import BadInput, CheckFailed, KiloError

_MOST_PASSED_OVER = 100


class NotThere(CheckFailed):
    """A store does not have an object of a backup that it has the manifest of."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One backup by its manifest's key, and its manifest as each store that has it lists it."""

    key: ManifestKey
    listed: Mapping[str, ObjectInfo]

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that have it."""
        return tuple(self.listed)


@dataclass(frozen=True, slots=True)
class Opened:
    """A backup whose manifest is genuine, with its data key, and what is wrong with newer ones."""

    manifest: Manifest
    data_key: bytes = field(repr=False)
    passed_over: tuple[KiloError, ...] = ()


@dataclass(slots=True)
class Catalogue:
    """All backups, oldest first, and the stores that could not be listed."""

    entries: list[Entry] = field(default_factory=list[Entry])
    errors: dict[str, KiloError] = field(default_factory=dict[str, KiloError])

    def find(self, backup_id: str | None) -> Entry:
        """The backup of that id, or the newest.

        Raises:
            BadInput: there is none.
        """
        if not self.entries:
            why = "; ".join(map(str, self.errors.values()))
            msg = f"no backup in any store{f' ({why})' if why else ''}; take one with kilo backup run"
            raise BadInput(msg)
        if backup_id is None:
            return self.entries[-1]
        for entry in self.entries:
            if entry.key.id == backup_id:
                return entry
        msg = f"{backup_id}: no such backup; kilo backup list names them"
        raise BadInput(msg)


def read_catalogue(stores: Mapping[str, Store]) -> Catalogue:
    """List the backups of every store. A store that can't be listed is noted, not raised."""
    catalogue = Catalogue()
    holders: dict[str, dict[str, ObjectInfo]] = {}
    for name, store in stores.items():
        try:
            listed = store.list(MANIFESTS)
        except KiloError as error:
            catalogue.errors[name] = error
            continue
        for entry in listed:
            holders.setdefault(entry.key, {})[name] = entry
    known = {key: ManifestKey.parse(key) for key in holders}
    parsed = sorted(
        (found for found in known.values() if found), key=lambda found: (found.sequence, found.id)
    )
    catalogue.entries = [Entry(found, holders[found.key]) for found in parsed]
    return catalogue


def read_manifest(store: Store, key: ManifestKey, verifier: Verifier) -> Manifest:
    """Read a manifest, hold it against its key and check its signature.

    Raises:
        CheckFailed: it is not there, not what its key says, or not signed by the stage.
        Unreachable: the store or KMS failed.
    """
    try:
        content = b"".join(store.read(key.key))
    except KeyError as error:
        msg = f"{store.describe()}/{key.key}: listed, but not there"
        raise CheckFailed(msg) from error
    return parse_manifest(key, content, store.describe(), verifier)


def unwrap_data_key(key: BackupKey, manifest: Manifest) -> bytes:
    """Unwrap the manifest's data key.

    Raises:
        CheckFailed: KMS denies it, or the key was wrapped for something else.
        Unreachable: KMS does not answer.
    """
    context = manifest.encryption.context
    if context.get("backup") != manifest.id or context.get("purpose") != "backup":
        msg = f"backup {manifest.id}: its key belongs to another purpose or backup: {context}"
        raise CheckFailed(msg)
    return key.unwrap(manifest.encryption.wrapped_key, context)


def open_backup(store: Store, verifier: Verifier, key: BackupKey, entry: Entry) -> Opened:
    """Read a backup's manifest and unwrap its data key.

    Raises:
        CheckFailed: it is not there or not genuine, or KMS denies it.
        Unreachable: the store or KMS does not answer.
    """
    manifest = read_manifest(store, entry.key, verifier)
    return Opened(manifest, unwrap_data_key(key, manifest))


def open_newest(store: Store, verifier: Verifier, key: BackupKey, entries: Sequence[Entry]) -> Opened:
    """Open the newest of ``entries`` that is genuine, so that an invented one can't stand in the way.

    Raises:
        CheckFailed: none is; with what is wrong with the newest.
        Unreachable: the store or KMS does not answer.
    """
    passed_over: list[KiloError] = []
    for entry in reversed(entries):
        try:
            opened = open_backup(store, verifier, key, entry)
        except CheckFailed as error:
            passed_over.append(error)
            if len(passed_over) == _MOST_PASSED_OVER:
                break
            continue
        return Opened(opened.manifest, opened.data_key, tuple(passed_over))
    if passed_over:
        raise passed_over[0]
    msg = f"{store.describe()}: has no backup"
    raise CheckFailed(msg)


def ciphertext(store: Store, state: ObjectState) -> Iterator[bytes]:
    """Read an object as it lies in the store.

    Raises:
        CheckFailed: at its end, when size or digest are not the manifest's.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for piece in store.read(state.key):
            digest.update(piece)
            size += len(piece)
            yield piece
    except KeyError as error:
        msg = f"{store.describe()}/{state.key}: not there"
        raise NotThere(msg) from error
    if (size, digest.hexdigest()) != (state.size, state.sha256):
        msg = f"{store.describe()}/{state.key}: {size} bytes that are not the manifest's {state.size}"
        raise CheckFailed(msg)


def plaintext(store: Store, manifest: Manifest, name: str, data_key: bytes) -> Iterator[bytes]:
    """Read an object decrypted; nothing that is not genuine is yielded.

    Raises:
        CheckFailed: it was changed, cut off, or is missing.
    """
    yield from cipher.decrypt(data_key, name, ciphertext(store, manifest.objects[name]))
