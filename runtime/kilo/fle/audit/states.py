"""The log against the tables whose story it tells, both ways: what one says, the other must say too.

The owner of the database can cut the end of the log, or change a state behind it; each alone leaves a
contradiction that is named here. Keys from before they had digests are in no log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.audit.log import Entry

_MADE = ("make-key", "adopt-key")
_ENDED = ("finalized", "rolled-back")


@dataclass
class _Story:
    """What the log tells."""

    digests: dict[int, str] = field(default_factory=dict[int, str])
    retired: set[int] = field(default_factory=set[int])
    all_retired: set[str] = field(default_factory=set[str])
    """Tenants of which an older version's entry does not name the keys that it retired."""
    destroyed: set[int] = field(default_factory=set[int])
    shredded: set[str] = field(default_factory=set[str])
    states: dict[str, str] = field(default_factory=dict[str, str])
    plans: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    new_keys: dict[str, int | None] = field(default_factory=dict[str, int | None])
    """By plan, the key that its run led to."""
    newest: dict[str, int] = field(default_factory=dict[str, int])
    """By tenant, the key below whose version readers refuse."""


def check_states(connection: psycopg.Connection[TupleRow], entries: Sequence[Entry]) -> list[str]:
    """What the tables and ``entries`` contradict each other in; empty when they agree."""
    story = _Story()
    for entry in entries:
        try:
            content = json.loads(entry.text)
            _tell(story, content["action"], content["subject"].removeprefix("tenant/"), content["details"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # What is no entry at all is named by the chain's own check.
            continue
    return [
        *_keys(connection, story),
        *_rotations(connection, story),
        *_tenants(connection, story),
        *_fields(connection, story),
        *_checkpoints(connection, len(entries)),
    ]


def _tell(story: _Story, action: str, tenant: str, details: Mapping[str, Any]) -> None:
    plan = details.get("plan")
    if action in _MADE:
        story.digests[details["key"]] = details["digest"]
    elif action in {"destroy", "shred"}:
        story.destroyed |= set(details["keys"])
        if action == "shred":
            story.shredded.add(tenant)
    elif action == "plan":
        story.states[details["plan"]] = "planned"
        story.plans[details["plan"]] = details.get("content") or {}
    elif isinstance(plan, str) and "state" in details:
        story.states[plan] = details["state"]
        if action == "run":
            story.new_keys[plan] = details["new_key_id"]
        if details["state"] in _ENDED:
            story.retired |= set(details.get("retired", ()))
            story.all_retired |= set() if "retired" in details else {tenant}
        if action == "finalize" and story.plans.get(plan, {}).get("kind") == "rekey":
            story.newest[tenant] = details["new_key_id"]


def _keys(connection: psycopg.Connection[TupleRow], story: _Story) -> Iterator[str]:
    rows: list[tuple[int, str, str, bytes | None]] = connection.execute(
        "SELECT id, tenant, state, digest FROM fle_keys ORDER BY id"
    ).fetchall()
    for key_id, tenant, state, digest in rows:
        if digest is not None and key_id not in story.digests:
            yield f"key {key_id} of {tenant}: no entry of the log has its making"
        elif digest is not None and story.digests[key_id] != digest.hex():
            yield f"key {key_id} of {tenant}: its secret is not the one whose digest the log has"
        if state == "retired" and key_id not in story.retired and tenant not in story.all_retired:
            yield f"key {key_id} of {tenant}: is retired, and no entry of the log says so"
        if (state == "destroyed") != (key_id in story.destroyed):
            if state == "destroyed":
                yield f"key {key_id} of {tenant}: is destroyed, and no entry of the log says so"
            else:
                yield f"key {key_id} of {tenant}: is {state}, and the log says that it was destroyed"
    there = {key_id for key_id, *_ in rows}
    for key_id in sorted(story.digests.keys() - there):
        yield f"key {key_id}: was made, and is not in the key table"


def _rotations(connection: psycopg.Connection[TupleRow], story: _Story) -> Iterator[str]:
    rows: list[tuple[str, str, int | None]] = connection.execute(
        "SELECT plan_hash, state, new_key_id FROM fle_rotations ORDER BY created_at"
    ).fetchall()
    for plan, state, new in rows:
        if story.new_keys.get(plan, new) != new:
            yield f"plan {plan[:12]}: leads to key {new}, and the log says {story.new_keys[plan]}"
        told = story.states.get(plan)
        if told is None:
            yield f"plan {plan[:12]}: is {state}, and no entry of the log has it"
        elif told != state:
            yield f"plan {plan[:12]}: is {state}, and the log says {told}"
    for plan in sorted(story.states.keys() - {plan for plan, *_ in rows}):
        yield f"plan {plan[:12]}: is in the log, and not among the rotations"


def _tenants(connection: psycopg.Connection[TupleRow], story: _Story) -> Iterator[str]:
    rows: list[tuple[str, int, bool]] = connection.execute(
        "SELECT tenant, minimum_version, shredded_at IS NOT NULL FROM fle_tenants ORDER BY 1"
    ).fetchall()
    versions = dict(connection.execute("SELECT id, version FROM fle_keys").fetchall())
    least = {tenant: minimum for tenant, minimum, _ in rows}
    for tenant, key_id in sorted(story.newest.items()):
        if least.get(tenant, 0) < versions.get(key_id, 0):
            yield f"{tenant}: readers take values that the last finalized rotation refused"
    shredded = {tenant for tenant, _, gone in rows if gone}
    for tenant in sorted(shredded ^ story.shredded):
        yield f"{tenant}: the log and the key table differ on whether it was shredded"


def _fields(connection: psycopg.Connection[TupleRow], story: _Story) -> Iterator[str]:
    moving = {
        (plan.get("tenant"), name)
        for digest, plan in story.plans.items()
        if story.states[digest] not in {"planned", *_ENDED} and plan.get("kind") in {"adopt", "release"}
        for table in plan.get("tables", ())
        for name in (*table["columns"], *(each for some in table["documents"].values() for each in some))
    }
    rows: list[tuple[str, str]] = connection.execute(
        "SELECT tenant, field FROM fle_scope WHERE plain_accepted OR NOT encrypted ORDER BY 1, 2"
    ).fetchall()
    for tenant, name in rows:
        if (tenant, name) not in moving:
            yield f"{tenant}/{name}: plain values are accepted or written, and no rotation under way moves it"


def _checkpoints(connection: psycopg.Connection[TupleRow], size: int) -> Iterator[str]:
    row = connection.execute("SELECT max(size) FROM fle_checkpoints").fetchone()
    if row and row[0] and row[0] > size:
        yield f"the log has {size} entries, and {row[0]} were signed: its end was cut off"
