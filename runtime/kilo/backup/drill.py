"""The restore drill: the newest backup of each store into an empty server, compared, and written down.

Recovery time (RTO) runs from the decision to restore until the contents are proven; recovery point
(RPO) is the age of the restored data. The evidence is written create-only beside the backups, so
that it is locked as they are, and the exporter and pruning can see what was last proven.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from kilo.backup.catalogue import Opened, open_newest, read_catalogue
from kilo.backup.keys import BackupKey
from kilo.backup.restore import restore
from kilo.backup.scratch import scratch_database
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.errors import CheckFailed, KiloError

DRILLS = "drills/"
_KEY = re.compile(r"drills/\d{8}T\d{12}Z-(?P<store>[a-z]+)-(?P<backup>[0-9TZ]+-[0-9a-f]{6})-proven\.json")


class Evidence(BaseModel):
    """What one drill from one store proved, and in what it was not as at the source. Times are UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    backup: str
    store: str
    drilled_at: datetime
    recovery_time_seconds: float
    recovery_point_seconds: float
    tables: int
    rows: int
    manifest_sha256: str
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def key(self) -> str:
        """The key under which the evidence lies: when, which backup, how it went."""
        outcome = "failed" if self.error else "proven"
        return f"{DRILLS}{self.drilled_at:%Y%m%dT%H%M%S%fZ}-{self.store}-{self.backup}-{outcome}.json"

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Read evidence; None when it is none."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None


def drill(
    stores: Mapping[str, Store], verifier: Verifier, key: BackupKey, backup_id: str | None = None
) -> list[Evidence]:
    """Drill the backup of that id, or the newest genuine one that each store has.

    Failures are in the evidence; so is every newer manifest that was passed over since it is not genuine.

    Raises:
        BadInput: no store has a backup.
    """
    catalogue = read_catalogue(stores)
    catalogue.find(backup_id)
    results: list[Evidence] = []
    for name, store in stores.items():
        begun = datetime.now(UTC)
        held = [entry for entry in catalogue.entries if name in entry.stores]
        chosen = [entry for entry in held if backup_id in {None, entry.key.id}]
        if not chosen:
            absent = CheckFailed(f"{store.describe()}: has no backup{f' {backup_id}' if backup_id else ''}")
            results.append(_failed(name, "none", begun, catalogue.errors.get(name, absent)))
            continue
        try:
            opened = open_newest(store, verifier, key, chosen)
        except KiloError as error:
            results.append(_failed(name, chosen[-1].key.id, begun, error))
            continue
        results += [_failed(name, "not-genuine", begun, error) for error in opened.passed_over[:1]]
        results.append(_drill(name, store, opened, begun))
    return results


def _drill(name: str, store: Store, opened: Opened, begun: datetime) -> Evidence:
    manifest = opened.manifest
    notes: list[str] = []
    try:
        with scratch_database(manifest.database, manifest.bootstrap_role, manifest.locale) as scratch:
            notes += [scratch.note] if scratch.note else []
            restored = restore(store, manifest, opened.data_key, scratch.url)
            finished = datetime.now(UTC)
    except KiloError as error:
        told = CheckFailed("; ".join([str(error), *notes])) if notes else error
        return _failed(name, manifest.id, begun, told)
    return Evidence(
        backup=manifest.id,
        store=name,
        drilled_at=finished,
        recovery_time_seconds=round((finished - begun).total_seconds(), 3),
        recovery_point_seconds=round((begun - manifest.snapshot_at).total_seconds(), 3),
        tables=restored.tables,
        rows=restored.rows,
        manifest_sha256=hashlib.sha256(manifest.content()).hexdigest(),
        notes=(*notes, *restored.left_out),
    )


def keep_evidence(stores: Mapping[str, Store], results: list[Evidence]) -> list[KiloError]:
    """Write the evidence into every store; what could not be written is returned."""
    errors: list[KiloError] = []
    for evidence in results:
        for store in stores.values():
            try:
                store.create(evidence.key, io.BytesIO(evidence.model_dump_json().encode()))
            except KiloError as error:
                errors.append(error)
    return errors


def last_proven(keys: Iterable[str], store: str) -> str | None:
    """The key of the newest evidence among ``keys`` that proved a backup of ``store``."""
    return max(
        (key for key in keys if (found := _KEY.fullmatch(key)) and found["store"] == store), default=None
    )


def backup_of(key: str) -> str:
    """The backup that the evidence under ``key`` proved."""
    found = _KEY.fullmatch(key)
    return found["backup"] if found else ""


def _failed(store: str, backup: str, begun: datetime, error: KiloError) -> Evidence:
    return Evidence(
        backup=backup,
        store=store,
        drilled_at=begun,
        recovery_time_seconds=0,
        recovery_point_seconds=0,
        tables=0,
        rows=0,
        manifest_sha256="",
        error=str(error),
    )
