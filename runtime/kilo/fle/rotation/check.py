"""Checking a rotation: what is left to do, and that every value of the tenant reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import TupleRow

from kilo.errors import CheckFailed
from kilo.fle.cipher import FieldCipher
from kilo.fle.datakey import XaesKey
from kilo.fle.formats import V2
from kilo.fle.rotation.columns import Columns, prefixes
from kilo.fle.rotation.convert import Converter, Goal
from kilo.fle.rotation.coverage import Covered, coverage
from kilo.fle.rotation.evidence import Column, Comparison
from kilo.fle.rotation.lookalikes import count_in_place, values_of
from kilo.fle.rotation.record import Rotation
from kilo.fle.rotation.tokens import stale_tokens

_DEAD_LETTERS = """
SELECT count(*) FROM dead_letters
WHERE state IN ('retrying', 'parked', 'waiting', 'replaying')
  AND EXISTS (SELECT FROM unnest(%s::bytea[]) AS start WHERE position(start IN payload) > 0)
"""


def goal_of(rotation: Rotation) -> Goal:
    """Where the rotation wants values, the way it goes now."""
    back = rotation.state == "rolling-back"
    match rotation.plan.kind:
        case "rekey":
            return Goal(rotation.old_key_id if back else rotation.new_key_id)
        case "adopt":
            # Going back, what lay encrypted before it stays so.
            return Goal(None, left=rotation.before) if back else Goal(rotation.new_key_id, rotation.scope)
        case "release":
            return Goal(rotation.old_key_id, rotation.scope) if back else Goal(None)
        case "reindex":
            msg = "index tokens lie under no data key"
            raise ValueError(msg)


def check_keys(connection: psycopg.Connection[TupleRow], rotation: Rotation) -> None:
    """Raise :class:`CheckFailed` unless what it leads to lies under its tenant's active key.

    Which keys a rotation has is said in its row, which nobody signed: by another number there, values could
    be brought under an older key, or one of format v1.
    """
    key_id = rotation.old_key_id if rotation.state == "rolling-back" else rotation.new_key_id
    if key_id is None:
        return
    row = connection.execute(
        "SELECT FROM fle_keys WHERE id = %s AND tenant = %s AND purpose = %s AND state = 'active'",
        (key_id, rotation.plan.tenant, rotation.purpose),
    ).fetchone()
    if row is None:
        msg = (
            f"{rotation.name}: key {key_id}, which it leads to, is not the active one of "
            f"{rotation.plan.tenant}: somebody changed the rotation or the key table; verify the audit log"
        )
        raise CheckFailed(msg)


def remaining(
    connection: psycopg.Connection[TupleRow],
    cipher: FieldCipher,
    rotation: Rotation,
    plain: frozenset[bytes] = frozenset(),
) -> int:
    """Values, or tokens, that do not yet lie where the rotation wants them.

    ``plain`` are the digests of those that look encrypted and are taken as plain.
    """
    if rotation.plan.kind == "reindex":
        return stale_tokens(connection, cipher, rotation)
    counted = coverage(connection, rotation.plan.tables, [rotation.plan.tenant])
    left = sum(each.values for each in counted if not _arrived(cipher, rotation, each))
    goal = goal_of(rotation)
    if not (left and plain) or goal.key_id is not None:
        return left
    in_place = count_in_place(connection, rotation, plain, evidence_key(cipher, rotation))
    return left - sum(number for (_, name), number in in_place.items() if name not in goal.left)


def held_by_dead_letters(connection: psycopg.Connection[TupleRow], key_ids: Sequence[int]) -> int:
    """Dead letters that wait and hold values under one of these keys: replaying them needs it."""
    found = connection.execute("SELECT to_regclass('dead_letters') IS NOT NULL").fetchone()
    if not key_ids or found is None or not found[0]:
        return 0
    # A value is a JSON string, so it begins after a quotation mark.
    starts = [f'"{prefix}'.encode() for key_id in key_ids for prefix in prefixes(key_id)]
    row = connection.execute(_DEAD_LETTERS, (starts,)).fetchone()
    return row[0] if row else 0


def evidence_key(cipher: FieldCipher, rotation: Rotation) -> bytes:
    """The key under which the rotation's digests of plaintexts are made."""
    rows = cipher.keyring.table.read(rotation.plan.tenant)
    wanted = rotation.new_key_id or rotation.old_key_id
    key_id = next((key.id for key in rows.keys if key.id == wanted and key.format == V2), None)
    if key_id is None:
        msg = f"tenant {rotation.plan.tenant} has no key of format v2; rotate to one (--kind rekey) first"
        raise CheckFailed(msg)
    key, _ = cipher.keyring.reader(rotation.plan.tenant, key_id)
    assert isinstance(key, XaesKey)  # noqa: S101 - its row says format 2
    return key.evidence_key(rotation.plan_hash)


@dataclass
class Verified:
    """What a verification found: each table's column by column, and how many values had been converted."""

    columns: dict[str, Column] = field(default_factory=dict[str, Column])
    converted: int = 0

    def counts(self) -> dict[str, int]:
        """Over all columns; ``same`` of the ``converted`` values read as before, the others were written
        or deleted since, and ``written_since`` says how many values lie there now that somebody wrote.
        """
        found = self.columns.values()
        same, read = sum(each.same for each in found), sum(each.values - each.failed for each in found)
        return {
            "values": sum(each.values for each in found),
            "failed": sum(each.failed for each in found),
            "plain": sum(each.plain for each in found),
            "converted": self.converted,
            "same": same,
            "written_since": read - same - sum(len(each.otherwise) for each in found),
        }

    def otherwise(self) -> list[str]:
        """Places of values that the backfill stored and that read otherwise than before it."""
        return [
            f"{name} row {row}" for name, column in self.columns.items() for row in sorted(column.otherwise)
        ]


def decrypt_all(
    connection: psycopg.Connection[TupleRow],
    cipher: FieldCipher,
    rotation: Rotation,
    plain: frozenset[bytes] = frozenset(),
) -> Verified:
    """Decrypt every value of the tenant, and compare each that was converted with what it was before."""
    result, evidence = Verified(), evidence_key(cipher, rotation)
    for spec in rotation.plan.tables:
        columns = Columns.load(connection, spec)
        converter = Converter(
            cipher.for_table(spec.context), rotation.plan.tenant, goal_of(rotation), evidence, plain
        )
        direction = "back" if rotation.state == "rolling-back" else "forward"
        comparison = Comparison(connection, rotation.plan_hash, spec.table, direction)
        with connection.cursor(name="fle_verify") as cursor:
            cursor.itersize = 5000
            cursor.execute(columns.select(None, None, skip_prefixes=False), {"tenant": rotation.plan.tenant})
            for row, *texts in cursor:
                for name, place, value in values_of(columns, row, texts):
                    column = comparison.column(name)
                    column.values += 1
                    outcome = converter.check(name, place, value)
                    if outcome is None:
                        column.failed += 1
                        continue
                    column.plain += not outcome.encrypted
                    comparison.add(name, str(place), outcome.evidence)
        comparison.flush()
        result.converted += comparison.converted
        result.columns |= comparison.columns
    return result


def _arrived(cipher: FieldCipher, rotation: Rotation, each: Covered) -> bool:
    goal = goal_of(rotation)
    if each.field in goal.left:
        return True
    if each.under == "plain":
        return goal.key_id is None or each.field not in goal.plain_fields
    if goal.key_id is None:
        return False
    if each.under == "v1":
        rows = cipher.keyring.table.read(rotation.plan.tenant)
        return any(key.id == goal.key_id and key.format != V2 for key in rows.keys)
    return each.under == str(goal.key_id)
