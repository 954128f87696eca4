"""What lies how: by tenant and field, rows plain, v1 and v2, by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from runtime.contract import EncryptedTable
from runtime.fle.rotation.columns import Columns, prefixes


@dataclass(frozen=True, slots=True)
class Covered:
    """How many values of one field lie under one thing: ``plain``, ``v1``, a key's number, ``unknown``."""

    tenant: str
    table: str
    field: str
    under: str
    values: int


def coverage(
    connection: psycopg.Connection[TupleRow], tables: Sequence[EncryptedTable], tenants: Sequence[str]
) -> list[Covered]:
    """Count the values of every field of every tenant; ``NULL`` values are left out."""
    result: list[Covered] = []
    keys: dict[str, dict[str, str]] = {tenant: {} for tenant in tenants}
    for key_id, tenant in connection.execute(
        "SELECT id, tenant FROM fle_keys WHERE purpose = 'field-data' AND format = 2 AND tenant = ANY(%s)",
        (list(tenants),),
    ):
        keys[tenant] |= dict.fromkeys(prefixes(key_id), str(key_id))
    for spec in tables:
        query = Columns.load(connection, spec).count()
        for tenant in tenants:
            counts: dict[tuple[str, str], int] = {}
            rows: list[tuple[str, str, int]] = connection.execute(
                query, {"tenant": tenant, "prefixes": list(keys[tenant])}
            ).fetchall()
            for field, group, number in rows:
                under = keys[tenant].get(group, group)
                if under != "null":
                    counts[field, under] = counts.get((field, under), 0) + number
            result += [
                Covered(tenant, spec.table, field, under, n) for (field, under), n in sorted(counts.items())
            ]
    return result
