"""The risk register's mitigations as checks that run: each shows its evidence, or says what is absent.

The risks are those of section 3 of the sprint's plan. A mitigation holds when the stage shows it now: in its
tables, its roles, its rules, its outputs. That code for it exists is no evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.fle.audit.log import Entry, leaf_hash
from kilo.fle.audit.signatures import check_signatures, people_of
from kilo.fle.audit.verify import Report, check_chain
from kilo.fle.rotation.approval import REQUIRED
from kilo.goals.measure import Figure, Measure, Query, Sql
from kilo.observe import metrics
from kilo.observe.sampling.budget import LONG_SECONDS, SHORT_SECONDS

_COMPARED_SECONDS = 10_800.0


class State(StrEnum):
    """Whether a mitigation is there."""

    HOLDS = "holds"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a check found, in words for a person; ``sampled_at`` is of figures that have a time."""

    state: State
    evidence: str
    sampled_at: float | None = None


Check = Callable[[Measure, StackOutputs], Shown]


@dataclass(frozen=True, slots=True)
class Mitigation:
    """One mitigation of one risk."""

    risk: str
    name: str
    check: Check


@dataclass(frozen=True, slots=True)
class Finding:
    """A mitigation with what its check showed."""

    mitigation: Mitigation
    shown: Shown

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "risk": self.mitigation.risk,
            "mitigation": self.mitigation.name,
            "state": self.shown.state.value,
            "evidence": self.shown.evidence,
            "sampled_at": self.shown.sampled_at,
        }


def _of(figure: Figure, holds: bool, evidence: str, absent: str) -> Shown:
    """Holds or absent by a figure; unknown where there is none."""
    if figure.trouble:
        return Shown(State.UNKNOWN, figure.trouble, figure.sampled_at)
    return Shown(State.HOLDS if holds else State.ABSENT, evidence if holds else absent, figure.sampled_at)


def _compaction(measure: Measure, _outputs: StackOutputs) -> Shown:
    # Partitions below the window are dropped, and each vacuums by count: a queue's table is never large.
    found = measure.sql(
        Sql(
            "SELECT count(*)::float8, NULL, count(*) FILTER (WHERE NOT coalesce("
            " 'autovacuum_vacuum_scale_factor=0' = ANY (c.reloptions), false)),"
            " coalesce(sum(pg_stat_get_dead_tuples(c.oid)), 0)::bigint"
            " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass('outbox')",
            "there is no outbox table",
            names=("without settings", "dead"),
        )
    )
    without, dead = found.evidence.get("without settings", 0), found.evidence.get("dead", 0)
    return _of(
        found,
        bool(found.value) and not without,
        f"{found.value or 0:.0f} partitions that vacuum by count, {dead} dead tuples",
        f"{without} of {found.value or 0:.0f} partitions of the outbox have no vacuum settings of a queue",
    )


def _indexes(measure: Measure, _outputs: StackOutputs) -> Shown:
    found = measure.sql(
        Sql(
            "SELECT count(*)::float8, NULL, coalesce(string_agg(c.relname, ', ' ORDER BY c.relname), '')"
            " FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
            " WHERE x.indrelid = to_regclass('outbox') AND x.indisvalid"
            " AND c.relname IN ('outbox_waiting_idx', 'outbox_dequeued_idx')",
            "",
            names=("indexes",),
        )
    )
    return _of(
        found,
        found.value == 2,
        f"valid: {found.evidence.get('indexes')}",
        f"of outbox_waiting_idx and outbox_dequeued_idx, valid: {found.evidence.get('indexes') or 'none'}",
    )


def _batches(measure: Measure, _outputs: StackOutputs) -> Shown:
    count, published = f"{metrics.OUTBOX_PUBLISH_DURATION.name}_count", metrics.OUTBOX_PUBLISHED.name
    found = measure.query(
        Query(f'sum({published}{{publisher="worker"}}) / (sum({count}) > 0)', (count, published))
    )
    value = found.value or 0.0
    return _of(
        found,
        value >= 1,
        f"{value:.1f} events a batch so far",
        f"{value:.2f} events a batch: less than one",
    )


def _outbox_metrics(measure: Measure, _outputs: StackOutputs) -> Shown:
    names = (
        metrics.OUTBOX_OLDEST_AGE.name,
        metrics.OUTBOX_ROWS_WAITING.name,
        metrics.OUTBOX_DEAD_TUPLES.name,
        metrics.OUTBOX_LOST.name,
    )
    found = measure.query(Query(f"max({names[0]})", names))
    return _of(found, True, f"{', '.join(names)} report; the oldest event waits {found.value or 0:.1f} s", "")


def _kms_only(measure: Measure, _outputs: StackOutputs) -> Shown:
    found = measure.sql(
        Sql(
            "SELECT nullif(count(DISTINCT k.id), 0)::float8, NULL, count(DISTINCT w.kms_key),"
            " count(*) FILTER (WHERE w.key_id IS NULL OR w.kms_key !~"
            " '^(arn:aws[a-z-]*:kms:|projects/[^/]+/locations/)')"
            " FROM fle_keys k LEFT JOIN fle_wraps w ON w.key_id = k.id"
            " WHERE k.state IN ('pending', 'active', 'retiring', 'retired')",
            "no data key was made yet",
            names=("kms keys", "others"),
        )
    )
    others = found.evidence.get("others", 0)
    return _of(
        found,
        not others,
        f"{found.value or 0:.0f} data keys, wrapped by {found.evidence.get('kms keys', 0)} KMS keys alone",
        f"{others} data keys are not wrapped by a KMS key",
    )


_MAY_READ = {"kilo_ingest", "kilo_consumer", "kilo_rotator", "kilo_keymaker", "kilo_destroyer"}
"""Roles that encrypt, decrypt, or make and end keys; of a backup see the migration's own policies."""


def _least_privilege(measure: Measure, _outputs: StackOutputs) -> Shown:
    rows = measure.rows(
        "SELECT r.rolname, has_table_privilege(r.oid, 'fle_wraps', 'SELECT'),"
        " has_table_privilege(r.oid, 'fle_audit', 'UPDATE, DELETE, TRUNCATE')"
        " FROM pg_roles r WHERE r.rolname LIKE 'kilo\\_%%' AND NOT r.rolsuper"
    )
    if isinstance(rows, str):
        return Shown(State.UNKNOWN, rows)
    read = {name for name, may, _ in rows if may} - _MAY_READ - {"kilo_backup"}
    rewrite = {name for name, _, may in rows if may}
    if not rows:
        return Shown(State.ABSENT, "the database has no role of a workload's own")
    if read or rewrite:
        said = [f"{', '.join(sorted(read))} may read wrapped keys"] if read else []
        said += [f"{', '.join(sorted(rewrite))} may rewrite the audit log"] if rewrite else []
        return Shown(State.ABSENT, "; ".join(said))
    return Shown(
        State.HOLDS,
        f"of {len(rows)} roles only those that encrypt, decrypt, back up or keep keys read wrapped keys; "
        "none can rewrite the audit log",
    )


def _dual_control(_measure: Measure, outputs: StackOutputs) -> Shown:
    people = {key for keys in people_of(outputs).values() for key in keys}
    if len(people) < REQUIRED + 1:
        return Shown(
            State.ABSENT,
            f"field_encryption.principals has {len(people)} people; a rotation takes a requester "
            f"and {REQUIRED} others",
        )
    return Shown(State.HOLDS, f"a plan takes its requester and {REQUIRED} of {len(people) - 1} others")


def _audit(measure: Measure, outputs: StackOutputs) -> Shown:
    rows = measure.rows("SELECT seq, entry, hash FROM fle_audit ORDER BY seq")
    if isinstance(rows, str):
        return Shown(State.UNKNOWN, rows)
    entries = [Entry(seq, text, bytes(digest)) for seq, text, digest in rows]
    report = Report()
    check_chain(entries, report, "database")
    if any(leaf_hash(entry.text) != entry.hash for entry in entries) or report.problems:
        return Shown(State.ABSENT, f"the log does not verify: {report.problems[0]}")
    signed, problems = check_signatures(entries, outputs.stage, people_of(outputs))
    if problems:
        return Shown(State.ABSENT, f"a signature of the log does not verify: {problems[0]}")
    if not outputs.field_encryption.audit_public_key:
        return Shown(
            State.ABSENT, f"{len(entries)} entries, and field_encryption.audit_public_key is not set"
        )
    covered = measure.rows("SELECT coalesce(max(size), 0) FROM fle_checkpoints")
    size = 0 if isinstance(covered, str) or not covered else int(covered[0][0])
    if entries and not size:
        return Shown(State.ABSENT, f"{len(entries)} entries, and no checkpoint was ever signed")
    return Shown(
        State.HOLDS, f"{len(entries)} entries verify, {signed} signatures of people, {size} in a checkpoint"
    )


def _attestations(_measure: Measure, outputs: StackOutputs) -> Shown:
    signers = outputs.registries.signers
    if not (signers.keys or signers.identities):
        return Shown(
            State.ABSENT, "registry.signers names nobody: what nobody signed is mirrored like the rest"
        )
    return Shown(
        State.HOLDS, f"mirrored is what one of {len(signers.keys) + len(signers.identities)} signers signed"
    )


def _periodic_diff(measure: Measure, _outputs: StackOutputs) -> Shown:
    name = metrics.MIRROR_COMPARED_LAST_SUCCESS.name
    found = measure.query(Query(f"time() - max({name})", (name,)))
    value = found.value or 0.0
    return _of(
        found,
        value <= _COMPARED_SECONDS,
        f"the registries were compared in full {value:.0f} s ago",
        f"the registries were last compared in full {value:.0f} s ago",
    )


def _drift_alert(measure: Measure, _outputs: StackOutputs) -> Shown:
    return _alerts(measure, "MirrorDrift", "MirrorNotCompared", "MirrorLag")


def _alerts(measure: Measure, *names: str) -> Shown:
    try:
        rules = {name: at for (name, _), at in measure.rules().items()}
    except KiloError as error:
        return Shown(State.UNKNOWN, str(error))
    missing = [name for name in names if name not in rules]
    if missing:
        return Shown(State.ABSENT, f"Prometheus does not evaluate {', '.join(missing)}")
    return Shown(State.HOLDS, f"Prometheus evaluates {', '.join(names)}", min(rules[name] for name in names))


def _windows(measure: Measure, _outputs: StackOutputs) -> Shown:
    found = _alerts(measure, "SamplingGuardTripped")
    if found.state is not State.HOLDS:
        return found
    said = f"a tenant is cut when {SHORT_SECONDS:.0f} s and {LONG_SECONDS:.0f} s are both over its budget"
    return Shown(State.HOLDS, f"{said}; {found.evidence}", found.sampled_at)


def _allow_list(_measure: Measure, outputs: StackOutputs) -> Shown:
    spans = outputs.monitoring.key_spans
    if not spans:
        return Shown(State.ABSENT, "monitoring.key_spans names no span that is always kept")
    return Shown(State.HOLDS, f"kept before all others: {', '.join(spans)}")


MITIGATIONS = (
    Mitigation("Outbox bloat or lag", "periodic compaction", _compaction),
    Mitigation("Outbox bloat or lag", "indexes", _indexes),
    Mitigation("Outbox bloat or lag", "batch dequeue", _batches),
    Mitigation("Outbox bloat or lag", "metrics", _outbox_metrics),
    Mitigation("Key mishandling", "KMS only", _kms_only),
    Mitigation("Key mishandling", "least privilege", _least_privilege),
    Mitigation("Key mishandling", "dual control", _dual_control),
    Mitigation("Key mishandling", "audit", _audit),
    Mitigation("Mirror drift", "signed attestations", _attestations),
    Mitigation("Mirror drift", "periodic diff", _periodic_diff),
    Mitigation("Mirror drift", "alert on mismatch", _drift_alert),
    Mitigation("Sampling too aggressive", "multi-window thresholds", _windows),
    Mitigation("Sampling too aggressive", "allow list", _allow_list),
)
"""Section 3 of the sprint's plan."""


def read_risks(measure: Measure, outputs: StackOutputs) -> list[Finding]:
    """Every mitigation as it stands now."""
    return [Finding(each, each.check(measure, outputs)) for each in MITIGATIONS]
