"""Building a pack: gather, clean, draw, check that nothing slipped through, sign, and lock away.

The log is checkpointed first, so that the checkpoint in the pack covers every entry of the log in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.rows import TupleRow

from kilo.backup.stores import Lock, Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.evidence import collect, pack
from kilo.evidence.chain import LOG, NOTE, render_log
from kilo.evidence.cleaning import Cleaner
from kilo.evidence.graphs import Graph, read_graphs
from kilo.evidence.report import render
from kilo.fle.audit.log import append, read
from kilo.fle.audit.store import Store as AuditStore
from kilo.fle.audit.verify import checkpoint
from kilo.goals.figures import Looking
from kilo.goals.goals import read_goals
from kilo.goals.measure import Measure
from kilo.goals.risks import read_risks

PREFIX = "acceptance/"
"""Where packs lie in the backup vault."""
RECORDED = "promotion-evidence"
Writing = Callable[[], AbstractContextManager[psycopg.Connection[TupleRow]]]


@dataclass(frozen=True)
class Request:
    """What a pack is to be of.

    Attributes:
        outputs: the stage's.
        since: seconds since the epoch.
        until: seconds since the epoch.
        program: the commit that the stage's program is of.
        soak_factor: by what the gates' soak times were multiplied.
        updates: the engine's record of the stack, the newest first; or why there is none.
        gates: the promotions' checks as they stood, if any.
    """

    outputs: StackOutputs
    since: float
    until: float
    program: str
    soak_factor: float = 1.0
    updates: Sequence[Mapping[str, Any]] | str = ()
    gates: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Built:
    """A pack, and what was noticed while it was made."""

    data: bytes
    manifest_sha256: str
    missing: Sequence[str]
    verdicts: Mapping[str, int] = field(default_factory=dict[str, int])


def build(  # noqa: PLR0917
    request: Request,
    measure: Measure,
    looking: Looking,
    log: tuple[AuditStore, Writing],
    key: Ed25519PrivateKey,
    cleaner: Cleaner,
) -> Built:
    """Gather, render and sign.

    Args:
        request: of what.
        measure: asks Prometheus and, reading only, the database.
        looking: what goals look at besides.
        log: where checkpoints are kept, and a connection that may note them.
        key: the audit key.
        cleaner: knows the secrets of this machine.

    Raises:
        CheckFailed: the audit log does not continue what was signed, or something that must not be in a pack
            was left in it.
        Unreachable: the audit log's store or database does not answer.
    """
    store, writing = log
    text, note, withheld = _audit(request.outputs.stage, store, writing, key, cleaner)
    parts = _gather(request, measure, looking)
    graphs = read_graphs(request.outputs, request.since, request.until)
    raw = {name: cleaner.clean(part) for name, part in parts.found.items()}
    raw["graphs"] = cleaner.clean({"graphs": [graph.document() for graph in graphs]})
    files = {f"data/{name}.json": _json(part) for name, part in raw.items()}
    files |= {LOG: text.encode(), NOTE: note.encode()}
    missing = [str(each) for each in cleaner.clean(parts.missing)]
    facts: dict[str, Any] = {
        "stage": request.outputs.stage,
        "since": round(request.since),
        "until": round(request.until),
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": request.program,
        "soak_factor": request.soak_factor,
        "audit_key": request.outputs.field_encryption.audit_public_key,
        "audit_checkpoint": note,
        "withheld": withheld,
        "removed": cleaner.removed,
        "missing": missing,
    }
    # Drawn from what is in the file, so that the page shows no more than it.
    drawn = [Graph(**each) for each in raw["graphs"]["graphs"]]
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    files[pack.REPORT] = render(facts, raw, drawn, digests).encode()
    if problems := cleaner.scan({**files, pack.MANIFEST: _json(facts)}):
        raise CheckFailed("\n".join(["the pack would show what it must not, so it is not made:", *problems]))
    data = pack.write(facts, files, key)
    counted: dict[str, int] = {}
    for row in raw["goals"].get("rows", ()):
        counted[row["verdict"]] = counted.get(row["verdict"], 0) + 1
    manifest = pack.manifest_of(data)
    return Built(data, sha256(manifest).hexdigest(), missing, counted)


def _gather(request: Request, measure: Measure, looking: Looking) -> collect.Parts:
    outputs, since = request.outputs, request.since
    parts = collect.Parts()
    now = measure.now()
    parts.add("goals", lambda: {"rows": [each.document(now) for each in read_goals(measure, looking)]})
    parts.add("risks", lambda: {"rows": [each.document() for each in read_risks(measure, outputs)]})
    parts.add("gates", lambda: {**collect.decisions(measure, since), "gates": list(request.gates)})
    parts.add("events", lambda: collect.events(measure, since, request.until))
    parts.add("replays", lambda: collect.replays(measure, since))
    parts.add("encryption", lambda: collect.encryption(measure, outputs))
    parts.add("mirror", lambda: collect.mirror(outputs))
    parts.add("ramps", lambda: collect.ramps(measure, outputs, since))
    parts.add("previews", lambda: {"rows": [dict(each) for each in looking.previews]})
    parts.add("outputs", lambda: {"outputs": outputs.model_dump(mode="json")})
    updates = request.updates
    parts.add(
        "program",
        lambda: (
            {"updates": [], "trouble": updates}
            if isinstance(updates, str)
            else collect.history(updates, since)
        ),
    )
    return parts


def _audit(
    stage: str, store: AuditStore, writing: Writing, key: Ed25519PrivateKey, cleaner: Cleaner
) -> tuple[str, str, int]:
    """The log, the checkpoint over all of it, and how many entries stand as their hash."""
    with writing() as connection:
        if connection.execute("SELECT count(*) FROM fle_audit").fetchone() == (0,):
            append(connection, "kilo", "promotion-step", f"promotion/{stage}", {"step": "the log begins"})
            connection.commit()
        made = checkpoint(connection, store, stage, key)
        entries = read(connection)
    names = [name for name in store.names() if name.startswith("checkpoint-")]
    newest = f"checkpoint-{made.size:010d}.note" if made else max(names)
    size = int(newest.removeprefix("checkpoint-").removesuffix(".note"))
    covered = entries[:size]
    text = render_log(covered, cleaner.is_fit)
    withheld = sum(not cleaner.is_fit(entry.text) for entry in covered)
    return text, store.read(newest), withheld


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode()


def lock_away(store: Store, stage: str, name: str, data: bytes) -> tuple[str, Lock]:
    """Put a pack under lock in the vault, where nothing is overwritten; where it lies, and its lock.

    Raises:
        StoreError: the store refuses, or there is a pack of that name.
    """
    key = f"{PREFIX}{stage}/{name}"
    lock = store.create(key, io.BytesIO(data))
    return f"{store.describe()}/{key}", lock


def record(writing: Writing, who: str, built: Built, stored: tuple[str, Lock], stage: str) -> None:
    """Note in the audit log that the pack was made, and where it is; a later checkpoint covers that.

    Whoever holds the audit key can sign another pack; this entry, and the lock, tell which one was the first.
    """
    location, lock = stored
    details = {
        "manifest": built.manifest_sha256,
        "sha256": sha256(built.data).hexdigest(),
        "location": location,
        "lock": lock.mode,
        "locked_until": lock.until.isoformat(timespec="seconds") if lock.until else None,
    }
    with writing() as connection:
        append(connection, who, RECORDED, f"promotion/{stage}", details)
