"""The plan of a rotation: canonical text whose hash people sign."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from kilo.contract import EncryptedTable, StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.keyset import MOST_SERVED_SECONDS
from kilo.tenancy import FieldName

Kind = Literal["rekey", "adopt", "release", "reindex"]
"""``rekey``: values go under a new key. ``adopt``: plain values are encrypted too, which is how a tenant
moves into scope. ``release``: values become plain, which is how a tenant moves out. ``reindex``: index tokens
are made anew under a new index key."""


LEAST_SETTLE_SECONDS = int(MOST_SERVED_SECONDS) + 300
"""How long processes go on with what they have in memory, and five minutes for slow transactions."""


def digest_of(text: str) -> str:
    """The hash of a plan's canonical text, in hex."""
    return sha256(text.encode()).hexdigest()


class Plan(BaseModel):
    """What a rotation will do. Equal plans have equal hashes, so the time of planning is part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    tenant: str
    kind: Kind
    tables: tuple[EncryptedTable, ...]
    requester: str
    created_at: str
    settle_seconds: int
    in_flight_days: int
    destroy_after_days: int

    def canonical(self) -> str:
        """The plan as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json")).decode()

    def digest(self) -> str:
        """SHA-256 of the canonical text, in hex."""
        return digest_of(self.canonical())

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read a plan's canonical text."""
        try:
            return cls.model_validate(json.loads(text))
        except (ValueError, ValidationError) as error:
            msg = "the stored plan can't be read: it was made by another version, or altered"
            raise CheckFailed(msg) from error


@dataclass(frozen=True, slots=True)
class Flag:
    """Whether the stage's configuration switches rotation on."""

    outputs: StackOutputs

    def check(self) -> None:
        """Raise :class:`CheckFailed` when rotation is off."""
        if not self.outputs.field_encryption.rotation_enabled:
            msg = (
                f"rotation is switched off on stage {self.outputs.stage}; "
                "set field_encryption.rotation_enabled in the stage's configuration and run `pulumi up`"
            )
            raise CheckFailed(msg)


def with_fields(table: EncryptedTable, fields: Iterable[FieldName]) -> EncryptedTable:
    """The table, where documents are searched for ``fields`` too."""
    documents = {column: tuple(sorted({*known, *fields})) for column, known in table.documents.items()}
    return table.model_copy(update={"documents": documents})


def _with_only(table: EncryptedTable, fields: Collection[FieldName]) -> EncryptedTable:
    columns = {name: column for name, column in table.columns.items() if name in fields}
    documents = {
        column: tuple(name for name in known if name in fields) for column, known in table.documents.items()
    }
    return table.model_copy(update={"columns": columns, "documents": documents})


def fields_of(tables: Iterable[EncryptedTable]) -> frozenset[FieldName]:
    """Every field that the tables hold."""
    return frozenset(
        name
        for each in tables
        for name in (*each.columns, *(f for some in each.documents.values() for f in some))
    )


def make_plan(
    outputs: StackOutputs,
    tenant: str,
    kind: Kind,
    requester: str,
    settle_seconds: int,
    *,
    in_flight_days: int | None,
    fields: Sequence[FieldName] = (),
    scope: Collection[FieldName] = (),
) -> Plan:
    """Plan a rotation for ``tenant`` over the stage's encrypted tables.

    ``fields`` are looked for in documents besides those of the outputs: a field that no tenant has had in its
    scope is not in the outputs yet when a tenant is about to move into it. An adoption or a release that
    names some leaves the others as they are. ``scope`` are the fields that are stored encrypted, which the
    outputs may no longer name.
    """
    if settle_seconds < LEAST_SETTLE_SECONDS:
        msg = (
            f"--settle-seconds: {settle_seconds} is too short; writers may go on under a key in memory, and "
            f"readers may not know of a change, for {LEAST_SETTLE_SECONDS} s"
        )
        raise BadInput(msg)
    if tenant not in outputs.tenants:
        msg = f"--tenant: {tenant} is not a tenant of stage {outputs.stage}"
        raise BadInput(msg)
    settings = outputs.field_encryption
    tables = [with_fields(each, {*fields, *scope}) for each in settings.tables]
    if kind in {"adopt", "release"} and fields:
        tables = [_with_only(each, fields) for each in tables]
    tables = [each for each in tables if (each.tokens if kind == "reindex" else fields_of([each]))]
    if not tables and kind == "reindex":
        msg = f"stage {outputs.stage}: field_encryption.tables names no tokens; there is no index to rotate"
        raise BadInput(msg)
    if not tables:
        msg = (
            f"stage {outputs.stage}: no table of field_encryption.tables holds "
            f"{'such a field' if fields else 'encrypted fields'}; name the tables and their columns"
        )
        raise BadInput(msg)
    return Plan(
        stage=outputs.stage,
        tenant=tenant,
        kind=kind,
        tables=tuple(tables),
        requester=requester,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        settle_seconds=settle_seconds,
        in_flight_days=_in_flight(settings.in_flight_days, kind)
        if in_flight_days is None
        else in_flight_days,
        destroy_after_days=settings.destroy_after_days,
    )


def _in_flight(days: int, kind: Kind) -> int:
    # Tokens are made where they are stored; none is on its way.
    return 0 if kind == "reindex" else days
