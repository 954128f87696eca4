"""Plain values that look encrypted: base64 that begins like a value of ours, and opens under no key.

Whether such a text was plain all along, or is an encrypted value that somebody altered, no program can tell.
So an adoption or a release that meets one names its row and leaves it, and two people other than the plan's
requester may say that it is plain. What they sign is this text in this place, by the rotation's keyed digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import EncryptedTable, StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.cipher import FieldCipher
from kilo.fle.errors import FieldError
from kilo.fle.formats import DocumentRow, RowId, is_encrypted
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation.columns import Columns
from kilo.fle.rotation.documents import parse_document
from kilo.fle.rotation.evidence import Evidence
from kilo.fle.rotation.record import Rotation, record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ACTION = "take-as-plain"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies; ``pointer`` (RFC 6901) is that of the object which holds it, inside a document."""

    table: str
    field: str
    row: str
    pointer: str | None = None

    def __str__(self) -> str:
        return f"{self.table}.{self.field} row {self.row}{self.pointer or ''}"


def values_of(columns: Columns, row: str, texts: list[str | None]) -> Iterator[tuple[str, RowId, str]]:
    """Each value of a row as :meth:`Columns.select` gives it: its field, the row it is bound to, its text."""
    for name, text in zip(columns.fields, texts, strict=False):
        if text is not None:
            yield name, row, text
    for name, text in zip(columns.documents, texts[len(columns.fields) :], strict=True):
        if text is None:
            continue
        for cell in parse_document(row, text, columns.spec.documents[name])[1]:
            yield cell.field, cell.row, cell.value


def taken(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, rotation: Rotation
) -> frozenset[bytes]:
    """The digests of what two people, who still are the stage's principals, take as plain."""
    rows: list[tuple[str]] = connection.execute(
        "SELECT DISTINCT action FROM fle_rotation_approvals WHERE plan_hash = %s AND starts_with(action, %s)",
        (rotation.plan_hash, f"{ACTION}:"),
    ).fetchall()
    return frozenset(
        bytes.fromhex(action.partition(":")[2])
        for (action,) in rows
        if len(approvals.count(connection, outputs, rotation, action, rotation.plan.requester)[0])
        >= approvals.REQUIRED
    )


def count_in_place(
    connection: psycopg.Connection[TupleRow],
    rotation: Rotation,
    digests: frozenset[bytes],
    evidence_key: bytes,
) -> dict[tuple[str, str], int]:
    """How many values that are taken as plain lie there as they were, by table and field."""
    found: dict[tuple[str, str], int] = {}
    for spec in rotation.plan.tables if digests else ():
        columns, evidence = Columns.load(connection, spec), Evidence(evidence_key, spec.context)
        with connection.cursor(name="fle_lookalikes") as cursor:
            cursor.execute(columns.select(None, None, skip_prefixes=False), {"tenant": rotation.plan.tenant})
            for row, *texts in cursor:
                for name, place, value in values_of(columns, row, texts):
                    if is_encrypted(value) and evidence.stored(name, place, value) in digests:
                        found[spec.table, name] = found.get((spec.table, name), 0) + 1
    return found


def take_as_plain(  # noqa: PLR0917 - what it takes
    connection: psycopg.Connection[TupleRow],
    outputs: StackOutputs,
    cipher: FieldCipher,
    rotation: Rotation,
    place: Place,
    evidence_key: bytes,
    signer: tuple[str, Ed25519PrivateKey],
) -> int:
    """Sign that the value in ``place`` is plain; how many have by now.

    Raises:
        BadInput: there is no such value.
        CheckFailed: it reads, or is no look-alike, or whoever signs requested the plan.
    """
    principal, key = signer
    if rotation.plan.kind not in {"adopt", "release"}:
        msg = f"{rotation.name}: plain values are met by an adoption or a release, not a {rotation.plan.kind}"
        raise CheckFailed(msg)
    if approvals.is_same_person(outputs, principal, rotation.plan.requester):
        msg = f"{principal} requested {rotation.name} and can't decide what it takes as plain"
        raise CheckFailed(msg)
    spec = next((each for each in rotation.plan.tables if each.table == place.table), None)
    if spec is None:
        known = ", ".join(each.table for each in rotation.plan.tables)
        msg = f"--table: {rotation.name} has no table {place.table} (known: {known})"
        raise BadInput(msg)
    row, value = _value_at(connection, spec, rotation.plan.tenant, place)
    if not is_encrypted(value):
        msg = f"{place}: does not look encrypted; nobody needs to decide"
        raise CheckFailed(msg)
    try:
        cipher.for_table(spec.context).decrypt_stored(rotation.plan.tenant, place.field, row, value)
    except FieldError:
        pass
    else:
        msg = f"{place}: is an encrypted value that reads; taking it as plain would encrypt it twice"
        raise CheckFailed(msg)
    digest = Evidence(evidence_key, spec.context).stored(place.field, row, value).hex()
    action = f"{ACTION}:{digest}"
    signed = approvals.sign(outputs, action, rotation.plan_hash, principal, key)
    public = approvals.public_key_of(outputs, principal)
    if approvals.keep(connection, rotation.plan_hash, action, signed, public):
        details = {"digest": digest, "place": str(place), "signature": signed.signature.hex()}
        record(connection, rotation, principal, ACTION, details)
    return len(approvals.count(connection, outputs, rotation, action, rotation.plan.requester)[0])


def _value_at(
    connection: psycopg.Connection[TupleRow], spec: EncryptedTable, tenant: str, place: Place
) -> tuple[RowId, str]:
    columns = Columns.load(connection, spec)
    wanted: RowId = place.row if place.pointer is None else DocumentRow(place.row, place.pointer)
    try:
        found = connection.execute(columns.select_row(), {"tenant": tenant, "row": place.row}).fetchone()
    except psycopg.DataError:
        found = None
    if found is not None:
        for name, row, value in values_of(columns, found[0], list(found[1:])):
            if name == place.field and row == wanted:
                return row, value
    msg = f"--row: {place} has no value of {tenant}; inside a document, name the object with --pointer"
    raise BadInput(msg)
