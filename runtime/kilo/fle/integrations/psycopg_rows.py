"""Rows that come back decrypted from psycopg 3.

A dumper or loader sees one value and not the row that it belongs to, which decryption needs. A row
factory sees the row::

    with connection.cursor(row_factory=revealed(cipher)) as cursor:
        cursor.execute("SELECT tenant, id, email, phone FROM customers WHERE id = %s", (7,))

Writing is ``cipher.protect(tenant, record, row_id)`` before the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import AsyncCursor, Cursor
from psycopg.rows import RowMaker

from kilo.errors import BadInput
from kilo.fle.cipher import FieldCipher

Revealed = dict[str, Any]


def revealed(
    cipher: FieldCipher, *, tenant_column: str = "tenant", row_column: str = "id"
) -> Callable[[Cursor[Any] | AsyncCursor[Any]], RowMaker[Revealed]]:
    """A row factory: rows as dictionaries, with each tenant's encrypted fields decrypted.

    The query must select ``tenant_column`` and ``row_column``; columns are matched to fields by name.
    """

    def factory(cursor: Cursor[Any] | AsyncCursor[Any]) -> RowMaker[Revealed]:
        names = [column.name for column in cursor.description or ()]
        if names and not {tenant_column, row_column} <= set(names):
            msg = f"the query must select {tenant_column} and {row_column}: values are bound to them"
            raise BadInput(msg)

        def make(values: Sequence[Any]) -> Revealed:
            record = dict(zip(names, values, strict=True))
            return cipher.reveal(record[tenant_column], record, record[row_column])

        return make

    return factory
