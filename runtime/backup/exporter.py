"""The backups' metrics, from what the stores have rather than from what a job once claimed.

A finished Job can't be scraped, and a job that never ran can't complain; a process that looks at
the stores sees both. It lists manifests and drill evidence, and reads the newest of each.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry

from runtime.backup.catalogue import read_catalogue, read_manifest
from runtime.backup.drill import DRILLS, Evidence
from runtime.backup.stores import Store
from runtime.errors import KiloError
from runtime.observe import metrics

log = logging.getLogger(__name__)


class Exporter:
    """Exports the state of the stores."""

    def __init__(self, stores: Mapping[str, Store], registry: CollectorRegistry) -> None:
        self._stores = stores
        self._last_success = metrics.BACKUP_LAST_SUCCESS.create(registry)
        self._last_failure = metrics.BACKUP_LAST_FAILURE.create(registry)
        self._duration = metrics.BACKUP_DURATION.create(registry)
        self._size = metrics.BACKUP_SIZE.create(registry)
        self._last_verified = metrics.BACKUP_LAST_VERIFIED.create(registry)
        self._recovery_time = metrics.BACKUP_DRILL_RECOVERY_TIME.create(registry)
        self._recovery_point = metrics.BACKUP_DRILL_RECOVERY_POINT.create(registry)
        self.ready = False

    def look(self) -> None:
        """Look at every store once. A store that does not answer keeps its last figures, which age."""
        catalogue = read_catalogue(self._stores)
        newest: datetime | None = None
        for name, store in self._stores.items():
            if name in catalogue.errors:
                log.warning("%s", catalogue.errors[name])
                continue
            held = [entry for entry in catalogue.entries if name in entry.stores]
            try:
                if held:
                    manifest = read_manifest(store, held[-1].key)
                    self._last_success.labels(name).set(manifest.finished_at.timestamp())
                    self._size.labels(name).set(manifest.size)
                    if newest is None or manifest.finished_at > newest:
                        newest = manifest.finished_at
                        self._duration.set(manifest.duration_seconds)
                behind = catalogue.entries and (not held or held[-1].key != catalogue.entries[-1].key)
                self._last_failure.labels(name).set(self._failure_time() if behind else 0)
                self._look_at_drills(name, store)
            except KiloError as error:
                log.warning("%s", error)
        self.ready = True

    def run(self, every_seconds: float, stopping: threading.Event) -> None:
        """Look each ``every_seconds`` until ``stopping`` is set."""
        while True:
            self.look()
            if stopping.wait(every_seconds):
                return

    def _failure_time(self) -> float:
        """When the newest backup finished that a store lacks."""
        catalogue = read_catalogue(self._stores)
        entry = catalogue.entries[-1]
        return read_manifest(self._stores[entry.stores[0]], entry.key).finished_at.timestamp()

    def _look_at_drills(self, name: str, store: Store) -> None:
        proven = sorted(
            entry.key
            for entry in store.list(DRILLS)
            if f"-{name}-" in entry.key and entry.key.endswith("-proven.json")
        )
        if not proven:
            return
        evidence = Evidence.parse(b"".join(store.read(proven[-1])))
        if evidence is not None:
            self._last_verified.labels(name).set(evidence.drilled_at.timestamp())
            self._recovery_time.labels(name).set(evidence.recovery_time_seconds)
            self._recovery_point.labels(name).set(evidence.recovery_point_seconds)
