"""The backups' metrics, from what the stores have rather than from what a job once claimed.

A finished Job can't be scraped, and a job that never ran can't complain; a process that looks at
the stores sees both. It lists manifests and drill evidence, and reads the newest of each.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry

from kilo.backup.catalogue import Entry, read_catalogue, read_manifest
from kilo.backup.drill import DRILLS, Evidence, last_proven
from kilo.backup.failures import FAILURES, failed_at
from kilo.backup.manifest import Manifest
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.errors import CheckFailed, KiloError
from kilo.observe import metrics

_LOOKED_AT = 10
log = logging.getLogger(__name__)


class Exporter:
    """Exports the state of the stores."""

    def __init__(self, stores: Mapping[str, Store], verifier: Verifier, registry: CollectorRegistry) -> None:
        self._stores = stores
        self._verifier = verifier
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
            # By the store's own clock, and 0 where there is none: an absent series would say nothing.
            self._last_success.labels(name).set(held[-1].listed[name].created_at.timestamp() if held else 0)
            try:
                manifest = self._newest_genuine(store, held)
                if manifest is not None:
                    self._size.labels(name).set(manifest.size)
                    if newest is None or manifest.finished_at > newest:
                        newest = manifest.finished_at
                        self._duration.set(manifest.duration_seconds)
                failed = max((failed_at(entry.key) for entry in store.list(FAILURES)), default=0.0)
                if catalogue.entries and (not held or held[-1].key != catalogue.entries[-1].key):
                    # Another store has a newer one, so the run to this one failed.
                    missed = max(info.created_at for info in catalogue.entries[-1].listed.values())
                    failed = max(failed, missed.timestamp())
                self._last_failure.labels(name).set(failed)
                self._look_at_drills(name, store)
            except (KiloError, KeyError) as error:
                log.warning("%s", error)
        self.ready = True

    def run(self, every_seconds: float, stopping: threading.Event) -> None:
        """Look each ``every_seconds`` until ``stopping`` is set."""
        while True:
            self.look()
            if stopping.wait(every_seconds):
                return

    def _look_at_drills(self, name: str, store: Store) -> None:
        proven = last_proven((entry.key for entry in store.list(DRILLS)), name)
        if proven is None:
            self._last_verified.labels(name).set(0)
            return
        evidence = Evidence.parse(b"".join(store.read(proven)))
        if evidence is not None:
            self._last_verified.labels(name).set(evidence.drilled_at.timestamp())
            self._recovery_time.labels(name).set(evidence.recovery_time_seconds)
            self._recovery_point.labels(name).set(evidence.recovery_point_seconds)

    def _newest_genuine(self, store: Store, held: Sequence[Entry]) -> Manifest | None:
        for entry in reversed(held[-_LOOKED_AT:]):
            try:
                return read_manifest(store, entry.key, self._verifier)
            except CheckFailed as error:
                log.warning("%s", error)
        return None
