"""Removing old backups: never a locked one, never the newest, never the last that a drill proved.

A backup is removed manifest first, so that what a killed run leaves behind is no longer a backup,
and its remaining objects are removed by the next run. What is spared as newest is genuine: manifests that
the stage did not sign push nothing out. Needs an identity that may delete, which neither the writer nor the
restorer is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kilo.backup.catalogue import read_manifest
from kilo.backup.drill import DRILLS, backup_of, last_proven
from kilo.backup.manifest import MANIFESTS, OBJECTS, ManifestKey
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.errors import CheckFailed, KiloError

STORES = ("primary", "secondary")
_UNDER_WAY = timedelta(days=1)
"""Objects without a manifest that are younger than this may belong to a run that is not over."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of one backup's objects in one store."""

    store: str
    backup: str
    outcome: str
    error: KiloError | None = None
    """Why the store could not be looked at, or did not remove what is not locked."""

    def document(self) -> dict[str, str]:
        """The JSON form."""
        return {"store": self.store, "backup": self.backup, "outcome": self.outcome}


def prune(
    stores: Mapping[str, Store], verifier: Verifier, *, keep_days: int, keep_last: int, dry_run: bool = False
) -> list[Pruned]:
    """Remove backups that are older than ``keep_days``, apart from the ``keep_last`` newest.

    A store that can't be listed is noted with the outcome, and the other is pruned all the same.
    """
    results: list[Pruned] = []
    for name, store in stores.items():
        try:
            results += _prune_store(name, store, verifier, keep_days, max(1, keep_last), dry_run=dry_run)
        except KiloError as error:
            results.append(Pruned(name, "all", f"kept: {error}", error))
    return results


def _prune_store(
    name: str, store: Store, verifier: Verifier, keep_days: int, keep_last: int, *, dry_run: bool
) -> list[Pruned]:
    now = datetime.now(UTC)
    listed = {entry.key: entry for entry in store.list(MANIFESTS)}
    manifests = sorted(
        (found for found in map(ManifestKey.parse, listed) if found),
        key=lambda found: (found.sequence, found.id),
    )
    drills = [entry.key for entry in store.list(DRILLS)]
    proven = filter(None, (last_proven(drills, each) for each in STORES))
    newest = itertools.islice(_genuine(store, verifier, reversed(manifests)), keep_last)
    spared = {*newest, *map(backup_of, proven)}
    objects: dict[str, list[str]] = {}
    recent: set[str] = set()
    for entry in store.list(OBJECTS):
        backup_id = entry.key.removeprefix(OBJECTS).partition("/")[0]
        objects.setdefault(backup_id, []).append(entry.key)
        if entry.created_at > now - _UNDER_WAY:
            recent.add(backup_id)
    # Manifest first: what is left of it then is no longer a backup.
    doomed = {
        found.id: [found.key, *objects.get(found.id, [])]
        for found in manifests
        if found.id not in spared and _age_days(listed[found.key].created_at, now) > keep_days
    }
    orphans = objects.keys() - {found.id for found in manifests} - recent
    doomed |= {backup_id: objects[backup_id] for backup_id in sorted(orphans)}
    return [_remove(name, store, backup_id, keys, now, dry_run=dry_run) for backup_id, keys in doomed.items()]


def _genuine(store: Store, verifier: Verifier, manifests: Iterable[ManifestKey]) -> Iterator[str]:
    """The ids of those that the stage has signed."""
    for found in manifests:
        with suppress(CheckFailed):
            yield read_manifest(store, found, verifier).id


def _remove(
    name: str, store: Store, backup_id: str, keys: list[str], now: datetime, *, dry_run: bool
) -> Pruned:
    try:
        locks = [store.lock(key) for key in keys]
        locked = max((lock.until for lock in locks if lock.until), default=None)
        if locked and locked > now:
            return Pruned(name, backup_id, f"kept: locked until {locked:%Y-%m-%d}")
        if not dry_run:
            for key in keys:
                store.delete(key)
    except KeyError:
        return Pruned(name, backup_id, "kept: changed meanwhile")
    except KiloError as error:
        return Pruned(name, backup_id, f"kept: {error}", error)
    return Pruned(name, backup_id, "would remove" if dry_run else "removed")


def _age_days(created_at: datetime, now: datetime) -> float:
    return (now - created_at) / timedelta(days=1)
