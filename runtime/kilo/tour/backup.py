"""A backup of the stage's database into both stores, and a drill of it from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kilo.backup.drill import Evidence, drill, keep_evidence
from kilo.backup.keys import BackupKey
from kilo.backup.run import BackupResult, run_backup
from kilo.backup.signatures import Verifier
from kilo.backup.stores import open_stores
from kilo.contract import StackOutputs


@dataclass(frozen=True)
class Drilled:
    """What was taken, and what each store's copy proved when it was restored."""

    taken: BackupResult
    evidence: tuple[Evidence, ...]
    problems: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The JSON form."""
        manifest = self.taken.manifest
        return {
            "backup": manifest.id,
            "size_bytes": manifest.size,
            "duration_seconds": manifest.duration_seconds,
            "tables": len(manifest.tables),
            "rows": sum(state.rows for state in manifest.tables.values()),
            "stores": [store.document() for store in self.taken.stores],
            "drills": [found.model_dump(mode="json") for found in self.evidence],
            "problems": list(self.problems),
        }


def back_up_and_drill(
    outputs: StackOutputs, database: str, *, progress: Callable[[str], None] = lambda _: None
) -> Drilled:
    """Take a backup of ``database`` and restore it from every store into an empty scratch server.

    What fails at one store is in the result.

    Raises:
        KiloError: no store could take the backup.
    """
    stores = open_stores(outputs.backups)
    progress("backing up into both stores")
    taken = run_backup(outputs, stores, database)
    progress(f"drilling {taken.manifest.id} from both stores")
    evidence = drill(stores, Verifier(outputs.backups), BackupKey(outputs.backups), taken.manifest.id)
    problems = [f"backup to {store.store}: {store.error}" for store in taken.stores if store.error]
    problems += [f"drill from {found.store}: {found.error}" for found in evidence if found.error]
    problems += [f"evidence: {error}" for error in keep_evidence(stores, evidence)]
    return Drilled(taken, tuple(evidence), tuple(problems))
