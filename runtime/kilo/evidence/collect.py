"""What goes into a pack: each part's raw data, gathered from the running stage.

Taken are names, figures, times and digests. Left out: payloads, ordering keys and idempotency keys, which
are the clients' own words, commit messages and their authors, and errors, which quote what they failed on. A
part that can't be read is in the pack with its reason: evidence that is missing is shown as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.fle.rotation.coverage import coverage, scopes, tables_with
from kilo.goals.measure import Measure
from kilo.promotion.evidence import gather
from kilo.promotion.parity import check_parity, registry_locations
from kilo.registry.client import Registries
from kilo.registry.mirror import Sides
from kilo.registry.reference import Reference
from kilo.registry.signers import Signers

_MOST_ROWS = 500
_MOST_IMAGES = 20
_PATIENCE_SECONDS = 30

Part = dict[str, Any]


@dataclass
class Parts:
    """Every part by its name, and what could not be read."""

    found: dict[str, Part] = field(default_factory=dict[str, Part])
    missing: list[str] = field(default_factory=list[str])

    def add(self, name: str, read: Callable[[], Part]) -> None:
        """Read one part."""
        try:
            self.found[name] = read()
        except KiloError as error:
            self.found[name] = {"trouble": str(error)}
        except psycopg.Error as error:
            # Its message may quote a row.
            self.found[name] = {"trouble": f"the database does not say ({type(error).__name__})"}
        if trouble := self.found[name].get("trouble"):
            self.missing.append(f"{name}: {trouble}")


def _rows(
    measure: Measure, names: Sequence[str], text: LiteralString, parameters: Mapping[str, Any] | None = None
) -> Part:
    rows = measure.rows(text, parameters)
    if isinstance(rows, str):
        return {"rows": [], "trouble": rows}
    return {"rows": [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in rows]}


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value


def events(measure: Measure, since: float, until: float) -> Part:
    """What became of each tenant's events."""
    return _rows(
        measure,
        ("tenant", "events", "by_worker", "by_cdc", "duplicates", "parked", "missing"),
        "SELECT e.tenant, count(*), count(*) FILTER (WHERE i.publisher = 'worker'),"
        " count(*) FILTER (WHERE i.publisher = 'cdc'), coalesce(sum(i.duplicates), 0)::bigint,"
        " count(*) FILTER (WHERE d.there), count(*) FILTER (WHERE i.publisher IS NULL AND d.there IS NULL)"
        " FROM events e"
        " LEFT JOIN LATERAL (SELECT min(i.publisher) AS publisher, sum(i.duplicates) AS duplicates"
        " FROM inbox i"
        " WHERE i.fingerprint = e.fingerprint AND i.tenant = e.tenant) i ON true"
        " LEFT JOIN LATERAL (SELECT true AS there FROM dead_letters d"
        " WHERE d.fingerprint = e.fingerprint AND d.tenant = e.tenant LIMIT 1) d ON true"
        " WHERE e.received_at >= to_timestamp(%(since)s) AND e.received_at < to_timestamp(%(until)s)"
        " GROUP BY 1 ORDER BY 1",
        {"since": since, "until": until},
    )


def replays(measure: Measure, since: float) -> Part:
    """Dead letters and their replays, each with the trace that it belongs to."""
    return _rows(
        measure,
        (
            "id",
            "consumer",
            "tenant",
            "kind",
            "state",
            "attempts",
            "replays",
            "first_at",
            "last_at",
            "trace_id",
        ),
        "SELECT id, consumer, tenant, kind, state, attempts, replays, first_at, last_at,"
        " substring(traceparent FROM '^00-([0-9a-f]{32})-') FROM dead_letters"
        " WHERE last_at >= to_timestamp(%(since)s) ORDER BY last_at DESC LIMIT %(most)s",
        {"since": since, "most": _MOST_ROWS},
    )


def encryption(measure: Measure, outputs: StackOutputs) -> Part:
    """Data keys with their KMS keys, rotations with who approved them, and what lies how."""
    keys = _rows(
        measure,
        ("key", "tenant", "purpose", "format", "version", "state", "created_at", "activated_at", "kms_keys"),
        "SELECT k.id, k.tenant, k.purpose, k.format, k.version, k.state, k.created_at, k.activated_at,"
        " array_remove(array_agg(w.kms_key ORDER BY w.kms_key), NULL)"
        " FROM fle_keys k LEFT JOIN fle_wraps w ON w.key_id = k.id GROUP BY k.id ORDER BY k.tenant, k.id",
    )
    rotations = _rows(
        measure,
        (
            "plan",
            "tenant",
            "kind",
            "state",
            "requester",
            "old_key",
            "new_key",
            "created_at",
            "finished_at",
            "approvers",
        ),
        "SELECT r.plan_hash, r.tenant, r.plan::jsonb ->> 'kind', r.state, r.requester, r.old_key_id,"
        " r.new_key_id, r.created_at, r.finished_at,"
        " array_remove(array_agg(a.principal ORDER BY a.principal), NULL)"
        " FROM fle_rotations r LEFT JOIN fle_rotation_approvals a ON a.plan_hash = r.plan_hash"
        " GROUP BY r.plan_hash ORDER BY r.created_at",
    )
    proofs = _rows(
        measure,
        ("entry", "at", "action", "subject", "details"),
        "SELECT seq, entry::jsonb ->> 'at', entry::jsonb ->> 'action', entry::jsonb ->> 'subject',"
        " entry::jsonb -> 'details' FROM fle_audit WHERE entry::jsonb ->> 'action'"
        " IN ('verify', 'finalize', 'destroy', 'shred', 'rolled-back') ORDER BY seq DESC LIMIT %(most)s",
        {"most": _MOST_ROWS},
    )
    part: Part = {
        "configured": {name: list(each.encrypted_fields) for name, each in outputs.tenants.items()},
        "keys": keys["rows"],
        "rotations": rotations["rows"],
        "proofs": proofs["rows"],
        "coverage": [],
    }
    if trouble := keys.get("trouble") or rotations.get("trouble") or proofs.get("trouble"):
        return {**part, "trouble": trouble}
    if isinstance(measure.connection, str):
        return {**part, "trouble": measure.connection}
    with measure.connection.transaction():
        tables = tables_with(outputs.field_encryption.tables, scopes(measure.connection))
        found = coverage(measure.connection, tables, sorted(outputs.tenants))
    part["coverage"] = [
        {
            "tenant": each.tenant,
            "table": each.table,
            "field": each.field,
            "under": each.under,
            "values": each.values,
        }
        for each in found
    ]
    return part


def ramps(measure: Measure, outputs: StackOutputs, since: float) -> Part:
    """Each ramp's steps, with the figures that decided."""
    return _rows(
        measure,
        ("at", "tenant", "feature", "act", "from", "to", "who", "reason", "figures", "seconds"),
        "SELECT s.at, r.tenant, r.feature, s.act, s.weight_from, s.weight_to, s.who, s.reason, s.figures,"
        " s.seconds FROM ramp_steps s JOIN ramps r ON r.id = s.ramp WHERE r.stage = %(stage)s"
        " AND s.at >= to_timestamp(%(since)s) ORDER BY s.id LIMIT %(most)s",
        {"stage": outputs.stage, "since": since, "most": _MOST_ROWS},
    )


def decisions(measure: Measure, since: float) -> Part:
    """What was promoted, let pass and rolled back, and who approved it, from the audit log."""
    return _rows(
        measure,
        ("at", "who", "what", "about", "approved by", "reason"),
        "SELECT entry::jsonb ->> 'at', entry::jsonb ->> 'actor', entry::jsonb ->> 'action',"
        " coalesce(entry::jsonb #>> '{details,step}', entry::jsonb ->> 'subject'),"
        " (SELECT string_agg(name, ', ') FROM jsonb_object_keys(coalesce("
        "entry::jsonb #> '{details,approvals}', '{}'::jsonb)) AS name),"
        " entry::jsonb #>> '{details,reason}'"
        " FROM fle_audit WHERE entry::jsonb ->> 'action' LIKE 'promotion-%%'"
        " AND (entry::jsonb ->> 'at')::timestamptz >= to_timestamp(%(since)s) ORDER BY seq LIMIT %(most)s",
        {"since": since, "most": _MOST_ROWS},
    )


def mirror(outputs: StackOutputs) -> Part:
    """The mirrored images: their digests, what is attested of them, and whether both registries agree."""
    registries = Registries(patience_seconds=_PATIENCE_SECONDS)
    signers, sides = Signers.of_outputs(outputs.registries.signers), Sides(outputs.registries)
    places = registry_locations([outputs])
    images: list[Part] = []
    left_out = 0
    for name in outputs.registries.repositories:
        primary, _ = sides.pair(name)
        tags = sorted(tag for tag in registries.repository(primary).tags().names if not _is_attached(tag))
        left_out += max(len(tags) - _MOST_IMAGES, 0)
        images += [
            _image(registries, outputs, f"{name}:{tag}", signers, places) for tag in tags[-_MOST_IMAGES:]
        ]
    return {"images": images, "left_out": left_out, "places": [str(place) for place in places]}


def _is_attached(tag: str) -> bool:
    """Signatures and referrers by their tag schemes, which belong to an image."""
    return tag.endswith((".sig", ".att", ".sbom")) or tag.startswith("sha256-")


def _image(registries: Registries, outputs: StackOutputs, image: str, signers: Signers, places: Any) -> Part:
    parity = check_parity(image, places, signers, registries)
    known = gather(registries, Reference.parse(f"{outputs.registries.primary.url}/{image}"), signers)
    return {
        "image": image,
        "digest": parity.digest,
        "same_everywhere": not parity.differences,
        "differences": [each.document() for each in parity.differences],
        "components": len(known.sboms),
        "attestations": [
            {
                "subject": claim.subject,
                "kind": claim.kind,
                "checksum": claim.meaning,
                "signed_by": claim.identity or "not verified",
            }
            for claim in sorted(known.claims)
        ],
    }


def history(updates: Sequence[Mapping[str, Any]], since: float) -> Part:
    """The engine's updates: what, when, how they ended, and the program's commit."""
    rows: list[Part] = []
    for update in updates[:_MOST_ROWS]:
        environment = update.get("environment") or {}
        if str(update.get("startTime", "")) and _seconds(update.get("endTime")) < since and rows:
            break
        rows.append(
            {
                "version": update.get("version"),
                "kind": update.get("kind"),
                "result": update.get("result"),
                "started_at": update.get("startTime"),
                "ended_at": update.get("endTime"),
                "commit": environment.get("git.head", ""),
                "uncommitted": environment.get("git.dirty", ""),
                "changes": update.get("resourceChanges") or {},
            }
        )
    return {"updates": rows}


def _seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
