"""Checking a rotation: what is left to do, and that every value of the tenant reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import psycopg
from psycopg.rows import TupleRow

from runtime.errors import CheckFailed
from runtime.fle.cipher import FieldCipher
from runtime.fle.datakey import XaesKey
from runtime.fle.formats import V2
from runtime.fle.rotation.columns import Columns, prefixes
from runtime.fle.rotation.convert import Converter, Goal
from runtime.fle.rotation.coverage import Covered, coverage
from runtime.fle.rotation.documents import cells
from runtime.fle.rotation.record import Rotation

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
            return Goal(rotation.old_key_id if back else rotation.new_key_id, plain_too=False)
        case "adopt":
            return Goal(None, plain_too=False) if back else Goal(rotation.new_key_id, plain_too=True)
        case "release":
            return Goal(rotation.old_key_id, plain_too=True) if back else Goal(None, plain_too=False)


def remaining(connection: psycopg.Connection[TupleRow], cipher: FieldCipher, rotation: Rotation) -> int:
    """Values that do not yet lie where the rotation wants them."""
    counted = coverage(connection, rotation.plan.tables, [rotation.plan.tenant])
    return sum(each.values for each in counted if not _arrived(cipher, rotation, each))


def held_by_dead_letters(connection: psycopg.Connection[TupleRow], key_ids: Sequence[int]) -> int:
    """Dead letters that wait and hold values under one of these keys: replaying them needs it."""
    found = connection.execute("SELECT to_regclass('dead_letters') IS NOT NULL").fetchone()
    if not key_ids or found is None or not found[0]:
        return 0
    # A value is a JSON string, so it begins after a quotation mark.
    starts = [f'"{prefix}'.encode() for key_id in key_ids for prefix in prefixes(key_id)]
    row = connection.execute(_DEAD_LETTERS, (starts,)).fetchone()
    return row[0] if row else 0


def evidence_key(cipher: FieldCipher, rotation: Rotation) -> XaesKey:
    """The key under which a rotation's digests are made."""
    rows = cipher.keyring.table.read(rotation.plan.tenant)
    wanted = rotation.new_key_id or rotation.old_key_id
    key_id = next((key.id for key in rows.keys if key.id == wanted and key.format == V2), None)
    if key_id is None:
        msg = f"tenant {rotation.plan.tenant} has no key of format v2; rotate to one (--kind rekey) first"
        raise CheckFailed(msg)
    key, _ = cipher.keyring.reader(rotation.plan.tenant, key_id)
    assert isinstance(key, XaesKey)  # noqa: S101 - its row says format 2
    return key


def decrypt_all(
    connection: psycopg.Connection[TupleRow], cipher: FieldCipher, rotation: Rotation
) -> tuple[dict[str, int], str]:
    """Decrypt every value of the tenant: counts, and a keyed digest over all of them in order."""
    total, failed, plain = 0, 0, 0
    digest = sha256()
    for spec in rotation.plan.tables:
        columns = Columns.load(connection, spec)
        converter = Converter(cipher.for_table(spec.context), rotation.plan.tenant, goal_of(rotation))
        with connection.cursor(name="fle_verify") as cursor:
            cursor.itersize = 5000
            cursor.execute(columns.select(None, None, skip_prefixes=False), {"tenant": rotation.plan.tenant})
            for row, *texts in cursor:
                for name, place, value in _values(columns, row, texts):
                    total += 1
                    outcome = converter.check(name, place, value)
                    if outcome is None:
                        failed += 1
                        continue
                    plain += not outcome.encrypted
                    digest.update(outcome.compared)
    sealed = evidence_key(cipher, rotation).seal_deterministic(digest.digest(), b"kilo rotation verify")
    return {"values": total, "failed": failed, "plain": plain}, sealed.hex()


def _values(columns: Columns, row: str, texts: Sequence[str | None]) -> Iterator[tuple[str, str, str]]:
    """Each value of a row: its field, the row it is bound to, its text."""
    for name, text in zip(columns.fields, texts, strict=False):
        if text is not None:
            yield name, row, text
    for name, text in zip(columns.documents, texts[len(columns.fields) :], strict=True):
        if text is None:
            continue
        for cell in cells(row, text, columns.spec.documents[name])[1]:
            yield cell.field, cell.row, cell.value


def _arrived(cipher: FieldCipher, rotation: Rotation, each: Covered) -> bool:
    goal = goal_of(rotation)
    if each.under == "plain":
        return goal.key_id is None or not goal.plain_too
    if goal.key_id is None:
        return False
    if each.under == "v1":
        rows = cipher.keyring.table.read(rotation.plan.tenant)
        return any(key.id == goal.key_id and key.format != V2 for key in rows.keys)
    return each.under == str(goal.key_id)
