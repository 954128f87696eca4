"""Fingerprints by the rules of manifests of format 2, so that older backups are held against what they say.

They summed PostgreSQL's hash of each row ("record"), or of its text where a type has none ("text"). Some
things they could not tell, and a backup is not proven where they matter: an enum or a ``reg*`` value was
hashed by its OID, which a restore changes; of a table with a column named ``t`` that column alone was
hashed; and two tables could share a name, as ``a."b.c"`` and ``"a.b".c``.
Tables of extensions were listed, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from kilo.backup.fingerprints import LARGE_OBJECTS, Table, list_tables
from kilo.backup.manifest import TableState
from kilo.backup.programs import one_line
from kilo.errors import CheckFailed

_ROWS: dict[str, LiteralString] = {
    "record": "SELECT count(*), coalesce(sum(pg_catalog.hash_record_extended(t, 0)), 0)::text FROM ONLY {} t",
    "text": "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(t::text, 0)), 0)::text FROM ONLY {} t",
}
_COUNT: LiteralString = "SELECT count(*), '' FROM ONLY {}"
_LARGE_OBJECTS = """
SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(
    oid::text || pg_catalog.encode(pg_catalog.lo_get(oid), 'hex'), 0)), 0)::text
FROM pg_catalog.pg_largeobject_metadata"""
# 24 and so on: regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary,
# regnamespace, regrole, regcollation.
_BY_OID = """
WITH RECURSIVE used (type) AS (
  SELECT atttypid FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
  UNION SELECT next.type FROM used JOIN pg_type t ON t.oid = used.type CROSS JOIN LATERAL (
    SELECT t.typelem AS type UNION ALL SELECT t.typbasetype
    UNION ALL SELECT a.atttypid FROM pg_attribute a
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
  ) next WHERE next.type <> 0)
SELECT EXISTS (SELECT FROM used JOIN pg_type t ON t.oid = used.type WHERE t.typtype = 'e'
  OR t.oid IN (24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191))"""
_OF_EXTENSIONS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND EXISTS (SELECT FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"""
_HAS_T = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = %s AND attname = 't' AND NOT attisdropped)"


def count_tables(
    connection: psycopg.Connection[Any], expected: Mapping[str, TableState]
) -> tuple[dict[str, TableState], dict[str, str]]:
    """Count and hash every table and the large objects as ``expected`` was.

    Returns:
        What was found, and of each table whose rows these rules can't tell, why.

    Raises:
        CheckFailed: a table can't be read by this role.
    """
    found: dict[str, TableState] = {}
    unprovable: dict[str, str] = {}
    tables = list_tables(connection)
    shared = Counter(map(former_key, tables))
    try:
        for table in tables:
            name = former_key(table)
            hashed = expected[name].hashed if name in expected else "text"
            why = "two tables have that name in its manifest" if shared[name] > 1 else ""
            why = why or _unprovable(connection, table, hashed)
            if why:
                unprovable[name] = why
            query = sql.SQL(_COUNT if why else _ROWS[hashed]).format(table.identifier)
            rows, fingerprint = cast("tuple[int, str]", connection.execute(query).fetchone())
            found[name] = TableState(rows=rows, fingerprint=fingerprint, hashed=hashed)
        for schema, name in connection.execute(_OF_EXTENSIONS).fetchall():
            unprovable[f"{schema}.{name}"] = "it is an extension's, whose rows pg_dump leaves to it"
        rows, fingerprint = cast("tuple[int, str]", connection.execute(_LARGE_OBJECTS).fetchone())
    except psycopg.Error as error:
        msg = f"counting rows: {one_line(error)}"
        raise CheckFailed(msg) from error
    if rows:
        found[LARGE_OBJECTS] = TableState(rows=rows, fingerprint=fingerprint, hashed="text")
    return found, {name: why for name, why in unprovable.items() if name in expected}


def former_key(table: Table) -> str:
    """A table's name as manifests of format 2 have it: not quoted."""
    return f"{table.schema}.{table.name}"


def _unprovable(connection: psycopg.Connection[Any], table: Table, hashed: str) -> str:
    if _asked(connection, _HAS_T, table):
        return "its column t alone was hashed"
    if hashed == "record" and _asked(connection, _BY_OID, table):
        return "an enum or reg* value was hashed by its OID"
    return ""


def _asked(connection: psycopg.Connection[Any], query: LiteralString, table: Table) -> bool:
    row = connection.execute(query, [table.oid]).fetchone()
    return bool(row and row[0])
