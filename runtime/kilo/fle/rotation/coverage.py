"""What lies how: by tenant and field, rows plain, v1 and v2, by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import EncryptedTable, StackOutputs
from kilo.fle import scope
from kilo.fle.rotation.columns import Columns, prefixes
from kilo.fle.rotation.plan import with_fields


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
        if not (spec.columns or any(spec.documents.values())):
            continue
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


@dataclass(frozen=True, slots=True)
class Scope:
    """A tenant's fields that writers encrypt, and those that a rotation is moving into scope or out of it."""

    fields: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()


def scopes(connection: psycopg.Connection[TupleRow]) -> dict[str, Scope]:
    """What lies encrypted by tenant, as the key table has it."""
    rows: list[tuple[str, list[str], list[str]]] = connection.execute(
        "SELECT tenant, coalesce(array_agg(field) FILTER (WHERE encrypted), '{}'),"
        " coalesce(array_agg(field) FILTER (WHERE plain_accepted), '{}') FROM fle_scope GROUP BY 1"
    ).fetchall()
    return {tenant: Scope(frozenset(fields), frozenset(moving)) for tenant, fields, moving in rows}


def tables_with(tables: Sequence[EncryptedTable], lying: Mapping[str, Scope]) -> list[EncryptedTable]:
    """The stage's tables, where documents are searched for what lies encrypted too."""
    fields = frozenset[str]().union(*(each.fields | each.moving for each in lying.values()))
    return [with_fields(each, fields) for each in tables]


def mismatches(outputs: StackOutputs, lying: Mapping[str, Scope], counted: Sequence[Covered]) -> list[str]:
    """Where the configuration differs from what lies there, each with the command that mends it."""
    found: list[str] = []
    for tenant, each in outputs.tenants.items():
        known = lying.get(tenant, Scope())
        configured = frozenset(each.encrypted_fields)
        own = [one for one in counted if one.tenant == tenant and one.values]
        encrypted = known.fields | {one.field for one in own if one.under != "plain"}
        plain = {one.field for one in own if one.under == "plain"}
        found += [scope.kept(tenant, field) for field in sorted(encrypted - configured - known.moving)]
        found += [scope.plain(tenant, field) for field in sorted((plain & configured) - known.moving)]
    return found
