"""Fingerprints of tables: what tells a restored table from one that lost or changed a row.

A row is the binary form of a record of its columns (``record_send``), hashed by PostgreSQL as 64 bits under
a seed that each backup draws; a table is the sum over its rows, which does not depend on their order. The
record is hashed as one, so that values exchanged between rows show. A column goes into it as it is where
its type is built in and its binary form says no more and no less than its text; everything else (enums,
``reg*``, arrays, domains, composites, ranges, types of extensions, floats, whose NaNs have many forms) goes
into it as the text that its output function gives, which is what pg_dump writes. The type is looked up by
its OID, never by name, and no cast is called, since the owner of a type may define one.

The columns' names and types are part of the fingerprint, in the order of their names: pg_dump puts
inherited columns first. Virtual generated columns are left out: they are stored nowhere.

Left out too: strength against somebody who knows the seed. Forging a dump is what its encryption and the
manifest's signature are against; the seed keeps a database's users from preparing rows that collide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import psycopg
import rfc8785
from psycopg import sql

from kilo.backup.encodings import byte_by_byte
from kilo.backup.manifest import TableState
from kilo.backup.programs import one_line
from kilo.errors import CheckFailed

LARGE_OBJECTS = "large objects"
"""Their key among the tables: no table's has neither dot nor quotes."""
PAGE_BYTES = 1024 * 1024
_LARGE_OBJECTS_AT_ONCE = 1000
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
# src/include/catalog/pg_type.dat: bool, bytea, char, name, int8, int2, int4, text, oid, json, bpchar,
# varchar, date, time, timestamp, timestamptz, numeric, uuid.
_AS_THEY_ARE = frozenset(
    {16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 1042, 1043, 1082, 1083, 1114, 1184, 1700, 2950}
)
_TABLES = """
SELECT c.oid, n.nspname, c.relname, e.condition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d
  ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
LEFT JOIN (SELECT unnest(extconfig) AS member, unnest(extcondition) AS condition FROM pg_extension) e
  ON e.member = c.oid
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema' AND (d.objid IS NULL OR e.member IS NOT NULL)
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C\""""
_COLUMNS = """
SELECT a.attname, a.atttypid, t.typtype IN ('c', 'd'), format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attname COLLATE "C\""""
_HASH = sql.SQL("pg_catalog.hash_record_extended(ROW(pg_catalog.record_send(ROW({}))), {})")
_LARGE_OBJECT_IDS = "SELECT oid FROM pg_catalog.pg_largeobject_metadata"
# Page by page: as one value it would have to fit into a gigabyte, in hexadecimal. A row for its length stands
# for one without pages.
_PAGES = sql.SQL("""
WITH opened AS MATERIALIZED (SELECT o.oid, lo_open(o.oid, 262144) AS fd FROM unnest(%s::oid[]) AS o (oid)),
measured AS MATERIALIZED (SELECT oid, fd, lo_lseek64(fd, 0, 2) AS size FROM opened),
closed AS MATERIALIZED (SELECT oid, size, lo_close(fd) FROM measured)
SELECT coalesce(sum({page}), 0)
FROM closed, LATERAL (SELECT -size AS at UNION ALL SELECT generate_series(0, size - 1, {bytes})) AS pages
""").format(
    page=_HASH.format(
        sql.SQL("oid, at, CASE WHEN at >= 0 THEN lo_get(oid, at, {}) END").format(PAGE_BYTES),
        sql.SQL("{seed}"),
    ),
    bytes=PAGE_BYTES,
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows pg_dump takes: all, or of an extension's table those of ``condition``."""

    oid: int
    schema: str
    name: str
    condition: str = ""

    @property
    def key(self) -> str:
        """Its name in manifests: quoted, so that no two tables share one."""
        return qualified(self.schema, self.name)

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in SQL."""
        return sql.Identifier(self.schema, self.name)


def qualified(schema: str, name: str) -> str:
    """``schema.name``, each part quoted unless it is of lower-case letters, digits and underscores."""
    parts = (
        part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"' for part in (schema, name)
    )
    return ".".join(parts)


def list_tables(connection: psycopg.Connection[Any]) -> list[Table]:
    """The tables whose rows pg_dump takes, by name. Of an extension's, its configuration."""
    rows = cast("list[tuple[int, str, str, str | None]]", connection.execute(_TABLES).fetchall())
    return [Table(oid, schema, name, condition or "") for oid, schema, name, condition in rows]


def fingerprint_tables(connection: psycopg.Connection[Any], seed: int) -> dict[str, TableState]:
    """Count and fingerprint every table of the connection's database, and its large objects.

    Raises:
        CheckFailed: a table or large object can't be read by this role.
    """
    found: dict[str, TableState] = {}
    name = LARGE_OBJECTS
    try:
        for table in list_tables(connection):
            name = table.key
            found[name] = _fingerprint(connection, table, seed)
        name = LARGE_OBJECTS
        if (state := _fingerprint_large_objects(connection, seed)).rows:
            found[name] = state
    except psycopg.Error as error:
        msg = f"fingerprinting {name}: {one_line(error)}"
        raise CheckFailed(msg) from error
    return found


def _fingerprint(connection: psycopg.Connection[Any], table: Table, seed: int) -> TableState:
    columns = cast("list[tuple[str, int, bool, str]]", connection.execute(_COLUMNS, [table.oid]).fetchall())
    values = [_value_of(sql.Identifier(name), oid, nested=nested) for name, oid, nested, _ in columns]
    query = sql.SQL("SELECT count(*), coalesce(sum({hash}), 0) FROM ONLY {table} {condition}").format(
        hash=_HASH.format(sql.SQL(", ").join(values), seed),
        table=table.identifier,
        # As pg_dump does, which runs it as it stands in pg_extension.
        condition=sql.SQL(cast("Any", table.condition)),
    )
    # The names in it are as they were read.
    written = query.as_bytes(connection)
    with byte_by_byte(connection):
        rows, total = cast("tuple[int, Decimal]", connection.execute(written).fetchone())
    return TableState(
        rows=rows,
        fingerprint=_digest([[name, type_] for name, _, _, type_ in columns], total),
        hashed="values",
    )


def _value_of(column: sql.Identifier, type_oid: int, *, nested: bool) -> sql.Composable:
    if type_oid in _AS_THEY_ARE:
        return column
    # A composite IS NULL as soon as its fields are.
    present = sql.SQL("pg_catalog.num_nulls({}) = 0" if nested else "{} IS NOT NULL").format(column)
    return sql.SQL("CASE WHEN {} THEN pg_catalog.concat({}) END").format(present, column)


def _fingerprint_large_objects(connection: psycopg.Connection[Any], seed: int) -> TableState:
    query = sql.SQL(cast("Any", _PAGES.as_string(connection))).format(seed=seed)
    rows, total = 0, Decimal(0)
    for ids in _large_object_ids(connection):
        rows += len(ids)
        [found] = cast("tuple[Decimal]", connection.execute(query, [ids]).fetchone())
        total += found
    return TableState(rows=rows, fingerprint=_digest([], total), hashed="values")


def _large_object_ids(connection: psycopg.Connection[Any]) -> Iterator[Sequence[int]]:
    with connection.cursor(name="large_objects") as cursor:
        cursor.execute(_LARGE_OBJECT_IDS)
        while rows := cursor.fetchmany(_LARGE_OBJECTS_AT_ONCE):
            yield [row[0] for row in rows]


def _digest(columns: list[list[str]], total: Decimal) -> str:
    return hashlib.sha256(rfc8785.dumps([columns, str(total)])).hexdigest()
