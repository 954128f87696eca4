"""Rows that come back decrypted from psycopg 3.

A dumper or loader sees one value and not the row that it belongs to, which decryption needs. A row
factory sees the row::

    with connection.cursor(row_factory=revealed(cipher)) as cursor:
        cursor.execute("SELECT tenant, id, email, phone FROM customers WHERE id = %s", (7,))

Writing is ``cipher.protect(tenant, record, row_id)`` before the statement.

A column under another name is said, ``revealed(cipher, columns={"contact": "email"})`` for ``email AS
contact``; one that holds the row's encrypted value and is not said is refused. A query that selects no
field of the cipher, such as ``count(*)``, needs neither tenant nor row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg import AsyncCursor, Cursor
from psycopg.rows import RowMaker

from kilo.errors import BadInput
from kilo.fle.cipher import FieldCipher
from kilo.fle.frames import clears_frames

Revealed = dict[str, Any]


def revealed(
    cipher: FieldCipher,
    *,
    tenant_column: str = "tenant",
    row_column: str = "id",
    columns: Mapping[str, str] | None = None,
) -> Callable[[Cursor[Any] | AsyncCursor[Any]], RowMaker[Revealed]]:
    """A row factory: rows as dictionaries, with each tenant's encrypted fields decrypted.

    Args:
        cipher: bound to the table.
        tenant_column: the result's column with the tenant.
        row_column: the result's column with the row's identity.
        columns: the field by the result's column, for columns that are not named as their field.

    Raises:
        BadInput: by ``execute``: the query selects an encrypted field without the columns that it is bound
            to, or one of these names twice; by a fetch: an encrypted value in a column that names no field.
    """
    fields = dict(columns or {})

    def factory(cursor: Cursor[Any] | AsyncCursor[Any]) -> RowMaker[Revealed]:
        names = [column.name for column in cursor.description or ()]
        encrypted = [name for name in names if fields.get(name, name) in cipher.known_fields]
        bound = {tenant_column, row_column} <= set(names)
        if encrypted and not bound:
            msg = f"the query must select {tenant_column} and {row_column}: values are bound to them"
            raise BadInput(msg)
        needed = [tenant_column, row_column, *encrypted] if bound else []
        if twice := sorted(name for name in set(needed) if names.count(name) > 1):
            msg = f"the query selects {', '.join(twice)} twice: name the others with AS"
            raise BadInput(msg)

        @clears_frames
        def make(values: Sequence[Any]) -> Revealed:
            record = dict(zip(names, values, strict=True))
            if bound:
                _reveal(record, record[tenant_column], record[row_column])
            return record

        return make

    def _reveal(record: Revealed, tenant: Any, row: Any) -> None:
        if tenant is None or row is None:
            # An outer join's row that is not there.
            return
        scope = cipher.revealed_fields(tenant)
        for name, value in record.items():
            field = fields.get(name, name)
            if field in scope:
                if value is not None:
                    record[name] = cipher.reveal_value(tenant, field, row, value)
            elif isinstance(value, str) and (found := cipher.field_of(tenant, row, value)):
                msg = (
                    f"the column {name} holds {tenant}/{found} encrypted: say so with "
                    f"columns={{{name!r}: {found!r}}}"
                )
                raise BadInput(msg)

    return factory
