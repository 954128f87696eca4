"""The SQL of one encrypted table: reading its columns and swapping their values.

A column is a text column, or ``payload.email``: the key ``email`` of a jsonb column. A document is a jsonb
column that holds fields at any depth; it is read and swapped whole. Left out: tables whose primary key has
several columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Self

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from kilo.contract import EncryptedTable
from kilo.errors import BadInput
from kilo.fle.formats import SUITE_AES_SIV, SUITE_KC_XAES, header, to_text

V1_PATTERN = "^A[Q-Za-f][A-Za-z0-9+/]{36,}=*$"
"""Base64 whose first byte is 0x01, of at least v1's shortest length."""
V2_PATTERN = "^A[g-v][A-Za-z0-9+/]{26,}=*$"
"""Base64 whose first byte is 0x02."""


_TEXT = '? (@.type() == "string")'


def _anywhere(name: str) -> str:
    """The JSON path of a field at any depth; strict, so that nothing is found twice."""
    return f"strict $.**.{json.dumps(name)}"


def prefixes(key_id: int) -> list[str]:
    """How base64 values of a v2 key begin: the six bytes of the header are eight characters."""
    return [to_text(header(suite, key_id)) for suite in (SUITE_KC_XAES, SUITE_AES_SIV)]


@dataclass(frozen=True)
class Columns:
    """SQL fragments of ``spec``; ``row_type`` is the type of its row column."""

    spec: EncryptedTable
    row_type: str
    fields: tuple[str, ...] = field(init=False)
    documents: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.spec.columns))
        object.__setattr__(self, "documents", tuple(self.spec.documents))

    @classmethod
    def load(cls, connection: psycopg.Connection[TupleRow], spec: EncryptedTable) -> Self:
        """Look up the row column's type, and check that the columns exist."""
        rows = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (spec.table,),
        ).fetchall()
        types: dict[str, str] = dict(rows)
        wanted = [
            spec.row_column,
            spec.tenant_column,
            *(each.partition(".")[0] for each in spec.columns.values()),
            *spec.documents,
            *(each.column for each in spec.tokens.values()),
        ]
        missing = [each for each in wanted if each not in types]
        if missing:
            msg = f"field_encryption.tables: table {spec.table} has no column {', '.join(missing)}"
            raise BadInput(msg)
        if not (spec.columns or spec.documents):
            msg = f"field_encryption.tables: table {spec.table} names neither columns nor documents"
            raise BadInput(msg)
        return cls(spec, types[spec.row_column])

    @property
    def table(self) -> sql.Composable:
        """The table's name."""
        return sql.Identifier(*self.spec.table.split("."))

    @property
    def row(self) -> sql.Composable:
        """The row column."""
        return sql.Identifier("t", self.spec.row_column)

    @property
    def tenant(self) -> sql.Composable:
        """The tenant column."""
        return sql.Identifier("t", self.spec.tenant_column)

    @property
    def row_type_sql(self) -> sql.Composable:
        """The type of the row column."""
        # From the catalogue, never from a caller; a type has no placeholder and no identifier of its own.
        return sql.SQL(self.row_type)  # pyright: ignore[reportArgumentType]

    def document(self, name: str) -> sql.Composable:
        """The expression that reads a document's text."""
        return sql.SQL("{}::text").format(sql.Identifier("t", name))

    def value(self, name: str) -> sql.Composable:
        """The expression that reads a field's stored text."""
        column, _, key = self.spec.columns[name].partition(".")
        if not key:
            return sql.Identifier("t", column)
        return sql.SQL("({} ->> {})").format(sql.Identifier("t", column), sql.Literal(key))

    def cast(self, placeholder: str) -> sql.Composable:
        """A placeholder for a row's identity given as text."""
        return sql.SQL("{}::text::{}").format(sql.Placeholder(placeholder), self.row_type_sql)

    def within(self, after: str | None, upto: str | None) -> list[sql.Composable]:
        """The conditions that a row is the tenant's and in a range of identities."""
        conditions: list[sql.Composable] = [sql.SQL("{} = %(tenant)s").format(self.tenant)]
        if after is not None:
            conditions.append(sql.SQL("{} > {}").format(self.row, self.cast("after")))
        if upto is not None:
            conditions.append(sql.SQL("{} <= {}").format(self.row, self.cast("upto")))
        return conditions

    def select(self, after: str | None, upto: str | None, *, skip_prefixes: bool) -> sql.Composed:
        """Rows of a tenant in a range of identities, in order: identity as text, fields, documents."""
        conditions = self.within(after, upto)
        if skip_prefixes:
            others = [
                sql.SQL("left({}, 8) <> ALL(%(done)s)").format(self.value(name)) for name in self.fields
            ]
            others += [self._not_done(name) for name in self.documents]
            conditions.append(sql.SQL("({})").format(sql.SQL(" OR ").join(others)))
        return sql.SQL("SELECT {}::text, {} FROM {} t WHERE {} ORDER BY {}").format(
            self.row,
            sql.SQL(", ").join([*map(self.value, self.fields), *map(self.document, self.documents)]),
            self.table,
            sql.SQL(" AND ").join(conditions),
            self.row,
        )

    def select_row(self) -> sql.Composed:
        """As :meth:`select`, for the tenant's row whose identity is ``%(row)s``."""
        return sql.SQL("SELECT {}::text, {} FROM {} t WHERE {} = %(tenant)s AND {} = {}").format(
            self.row,
            sql.SQL(", ").join([*map(self.value, self.fields), *map(self.document, self.documents)]),
            self.table,
            self.tenant,
            self.row,
            self.cast("row"),
        )

    def boundary(self, after: str | None) -> sql.Composed:
        """The last identity of the next ``%(size)s`` rows of the tenant."""
        beyond = (
            sql.SQL("AND {} > {}").format(self.row, self.cast("after")) if after is not None else sql.SQL("")
        )
        return sql.SQL(
            "SELECT s.id::text FROM (SELECT {} AS id FROM {} t WHERE {} = %(tenant)s {}"
            " ORDER BY {} LIMIT %(size)s) s ORDER BY s.id DESC LIMIT 1"
        ).format(self.row, self.table, self.tenant, beyond, self.row)

    def swap(self) -> sql.Composed:
        """Write new values where the old ones still stand: compare and swap, for arrays of rows."""
        numbers = range(len(self.fields) + len(self.documents))
        arrays: list[sql.Composable] = [
            sql.SQL("{}::text[]").format(sql.Placeholder(f"{kind}{number}"))
            for number in numbers
            for kind in ("old", "new")
        ]
        names: list[sql.Composable] = [
            sql.Identifier(f"{kind}{number}") for number in numbers for kind in ("old", "new")
        ]
        unchanged = [
            sql.SQL("{} IS NOT DISTINCT FROM v.{}").format(self.value(name), sql.Identifier(f"old{number}"))
            for number, name in enumerate(self.fields)
        ] + [
            sql.SQL("{} IS NOT DISTINCT FROM v.{}::jsonb").format(
                sql.Identifier("t", name), sql.Identifier(f"old{number}")
            )
            for number, name in enumerate(self.documents, len(self.fields))
        ]
        return sql.SQL(
            "UPDATE {} t SET {} FROM unnest(%(rows)s::text[], {}) AS v(id, {})"
            " WHERE {} = v.id::{} AND {} = %(tenant)s AND {}"
        ).format(
            self.table,
            sql.SQL(", ").join(self._assignments()),
            sql.SQL(", ").join(arrays),
            sql.SQL(", ").join(names),
            self.row,
            self.row_type_sql,
            self.tenant,
            sql.SQL(" AND ").join(unchanged),
        )

    def count(self) -> sql.Composed:
        """Values of each field by what they lie under; plain values are never shown."""
        parts = [self._count(name, self.value(name), self._from) for name in self.fields]
        for column, fields in self.spec.documents.items():
            for name in fields:
                values = sql.SQL("{}, jsonb_path_query({}, {}, '{{}}', true) AS found(value)").format(
                    self._from, sql.Identifier("t", column), sql.Literal(f"{_anywhere(name)} {_TEXT}")
                )
                parts.append(self._count(name, sql.SQL("(found.value #>> '{}')"), values))
        return sql.SQL(" UNION ALL ").join(parts)

    @property
    def _from(self) -> sql.Composable:
        return sql.SQL("{} t").format(self.table)

    def _count(self, name: str, value: sql.Composable, source: sql.Composable) -> sql.Composed:
        return sql.SQL(
            "SELECT {name}::text, CASE WHEN {value} IS NULL THEN 'null'"
            " WHEN left({value}, 8) = ANY(%(prefixes)s) THEN left({value}, 8)"
            " WHEN {value} ~ {v1} THEN 'v1' WHEN {value} ~ {v2} THEN 'unknown' ELSE 'plain' END, count(*)"
            " FROM {source} WHERE {tenant} = %(tenant)s GROUP BY 2"
        ).format(
            name=sql.Literal(name),
            value=value,
            v1=sql.Literal(V1_PATTERN),
            v2=sql.Literal(V2_PATTERN),
            source=source,
            tenant=self.tenant,
        )

    def _not_done(self, column: str) -> sql.Composable:
        """Whether a document holds a value that does not begin like ``%(done)s``, of which there are two."""
        other = '? (@.type() == "string" && !(@ starts with $one) && !(@ starts with $two))'
        done = "jsonb_build_object('one', (%(done)s::text[])[1], 'two', (%(done)s::text[])[2])"
        tests = [
            sql.SQL("jsonb_path_exists({}, {}, {}, true)").format(
                sql.Identifier("t", column), sql.Literal(f"{_anywhere(name)} {other}"), sql.SQL(done)
            )
            for name in self.spec.documents[column]
        ]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(tests))

    def _assignments(self) -> list[sql.Composable]:
        plain: list[sql.Composable] = []
        nested: dict[str, sql.Composable] = {}
        documents = [
            sql.SQL("{} = v.{}::jsonb").format(sql.Identifier(column), sql.Identifier(f"new{number}"))
            for number, column in enumerate(self.documents, len(self.fields))
        ]
        for number, name in enumerate(self.fields):
            column, _, key = self.spec.columns[name].partition(".")
            new = sql.Identifier("v", f"new{number}")
            if not key:
                plain.append(sql.SQL("{} = {}").format(sql.Identifier(column), new))
                continue
            # A missing key stays missing: jsonb_set is only asked where there is something new.
            inner = nested.get(column, sql.Identifier("t", column))
            nested[column] = sql.SQL(
                "CASE WHEN {new} IS NULL THEN {inner} ELSE jsonb_set({inner}, {path}, to_jsonb({new})) END"
            ).format(new=new, inner=inner, path=sql.Literal([key]))
        return (
            plain
            + [sql.SQL("{} = {}").format(sql.Identifier(column), value) for column, value in nested.items()]
            + documents
        )
