"""Index tokens under another version of the index key: their SQL, rewriting and verifying them.

A token is made of the value beside it, so it is rewritten while both still stand as they were read.
Tokens of v1 name no version and are left alone. Those of a first normalisation become ones of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from kilo.errors import CheckFailed
from kilo.fle.cipher import FieldCipher
from kilo.fle.deterministic import MARKS, make_token, token_mark
from kilo.fle.errors import FieldError
from kilo.fle.formats import is_encrypted
from kilo.fle.keytable import INDEX
from kilo.fle.rotation.columns import Columns
from kilo.fle.rotation.record import Rotation
from kilo.fle.rotation.rewrite import Rewritten
from kilo.fle.text import text_of


@dataclass(frozen=True)
class TokenColumns(Columns):
    """SQL of a table's token columns; a row is its identity, then value and token of each field."""

    def token(self, name: str) -> sql.Composable:
        """The token column of a field."""
        return sql.Identifier("t", self.spec.tokens[name].column)

    def select(self, after: str | None, upto: str | None, *, skip_prefixes: bool) -> sql.Composed:
        """See :class:`Columns`; with ``skip_prefixes``, rows with a token that does not begin so."""
        conditions = self.within(after, upto)
        if skip_prefixes:
            conditions.append(
                sql.SQL("({})").format(sql.SQL(" OR ").join(map(self._stale, self.spec.tokens)))
            )
        values = [sql.SQL("{}, {}").format(self.value(name), self.token(name)) for name in self.spec.tokens]
        return sql.SQL("SELECT {}::text, {} FROM {} t WHERE {} ORDER BY {}").format(
            self.row, sql.SQL(", ").join(values), self.table, sql.SQL(" AND ").join(conditions), self.row
        )

    def swap(self) -> sql.Composed:
        """See :class:`Columns`; a token changes only beside the value that it was made of."""
        kinds = ("value", "old", "new")
        names = [f"{kind}{number}" for number in range(len(self.spec.tokens)) for kind in kinds]
        unchanged = [
            sql.SQL("{} IS NOT DISTINCT FROM v.{} AND {} IS NOT DISTINCT FROM v.{}").format(
                self.value(name),
                sql.Identifier(f"value{number}"),
                self.token(name),
                sql.Identifier(f"old{number}"),
            )
            for number, name in enumerate(self.spec.tokens)
        ]
        changed = [
            sql.SQL("{} = v.{}").format(
                sql.Identifier(self.spec.tokens[name].column), sql.Identifier(f"new{number}")
            )
            for number, name in enumerate(self.spec.tokens)
        ]
        return sql.SQL(
            "UPDATE {} t SET {} FROM unnest(%(rows)s::text[], {}) AS v(id, {})"
            " WHERE {} = v.id::{} AND {} = %(tenant)s AND {}"
        ).format(
            self.table,
            sql.SQL(", ").join(changed),
            sql.SQL(", ").join([sql.SQL("{}::text[]").format(sql.Placeholder(name)) for name in names]),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            self.row,
            self.row_type_sql,
            self.tenant,
            sql.SQL(" AND ").join(unchanged),
        )

    def count(self) -> sql.Composed:
        """Tokens that do not begin like ``%(done)s``."""
        parts = [
            sql.SQL("SELECT count(*) FROM {} t WHERE {} = %(tenant)s AND {}").format(
                self.table, self.tenant, self._stale(name)
            )
            for name in self.spec.tokens
        ]
        return sql.SQL(" UNION ALL ").join(parts)

    def _stale(self, name: str) -> sql.Composable:
        return sql.SQL(
            "(({token} ^@ ANY ({marks})) AND NOT starts_with({token}, {mark} || (%(done)s::text[])[1]))"
        ).format(
            token=self.token(name),
            marks=sql.Literal(list(MARKS)),
            mark=sql.Literal(token_mark(self.spec.tokens[name].kind)),
        )


class TokenRewriter:
    """Makes the tokens of one table and tenant anew, under the index key that the rotation goes to."""

    def __init__(self, columns: Columns, cipher: FieldCipher, rotation: Rotation) -> None:
        self.columns, self.tenant, self._cipher = columns, rotation.plan.tenant, cipher
        self._version = wanted_version(cipher, rotation)
        self._done = f"{self._version}."

    def done(self) -> list[str]:
        """See :class:`Rewriter`."""
        return [self._done]

    def rewrite(self, ids: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rewritten:
        """See :class:`Rewriter`."""
        result = Rewritten()
        for number, name in enumerate(self.columns.spec.tokens):
            values: list[str | None] = [row[2 * number + 1] for row in rows]
            old: list[str | None] = [row[2 * number + 2] for row in rows]
            new, done = list(old), token_mark(self.columns.spec.tokens[name].kind) + self._done
            for at, (row, value, token) in enumerate(zip(ids, values, old, strict=True)):
                if token is None or not token.startswith(MARKS) or token.startswith(done):
                    continue
                try:
                    new[at] = self.made(name, row, value)
                except FieldError as error:
                    result.failed.append(f"row {row}: {error}")
                    continue
                if new[at] is None:
                    result.failed.append(f"row {row}: {self.tenant}/{name}: a token without its value")
                    new[at] = token
                    continue
                result.touched.add(at)
            arrays = {f"value{number}": values, f"old{number}": old, f"new{number}": new}
            result.arrays |= arrays
        return result

    def made(self, name: str, row: str, value: str | None) -> str | None:
        """The token of a stored value; ``None`` when there is no value.

        Raises:
            FieldError: the value can't be decrypted or normalised.
        """
        if value is None:
            return None
        table, spec = self._cipher.table, self.columns.spec.tokens[name]
        # Its own key alone: rotating is what mends a lost old one.
        _, key = self._cipher.keyring.index_key(self.tenant, table, name, self._version)
        text = value
        if is_encrypted(value):
            text = text_of(self.tenant, name, self._cipher.decrypt_stored(self.tenant, name, row, value))
        return make_token(key, self._version, spec.kind, text, spec.bits)


def wanted_version(cipher: FieldCipher, rotation: Rotation) -> int:
    """The index version that the rotation wants tokens under, the way it goes now."""
    wanted = rotation.old_key_id if rotation.state == "rolling-back" else rotation.new_key_id
    rows = cipher.keyring.table.read(rotation.plan.tenant).keys
    found = next((key.version for key in rows if key.id == wanted and key.purpose == INDEX), None)
    if found is None:
        msg = f"plan {rotation.plan_hash[:12]}: its index key is not in the key table"
        raise CheckFailed(msg)
    return found


def stale_tokens(connection: psycopg.Connection[TupleRow], cipher: FieldCipher, rotation: Rotation) -> int:
    """Tokens that are not yet under the version that the rotation wants."""
    if rotation.new_key_id is None:
        return 0
    done = f"{wanted_version(cipher, rotation)}."
    return sum(
        count
        for spec in rotation.plan.tables
        for (count,) in connection.execute(
            TokenColumns.load(connection, spec).count(), {"tenant": rotation.plan.tenant, "done": [done]}
        )
    )


def check_tokens(
    connection: psycopg.Connection[TupleRow], cipher: FieldCipher, rotation: Rotation
) -> tuple[dict[str, int], list[str]]:
    """Make every token again of the value beside it: (counts, places whose token is another)."""
    counts, otherwise = {"values": 0, "failed": 0, "same": 0}, list[str]()
    for spec in rotation.plan.tables:
        columns = TokenColumns.load(connection, spec)
        rewriter = TokenRewriter(columns, cipher.for_table(spec.context), rotation)
        with connection.cursor(name="fle_verify") as cursor:
            cursor.itersize = 5000
            cursor.execute(columns.select(None, None, skip_prefixes=False), {"tenant": rotation.plan.tenant})
            for row, *cells in cursor:
                for name, value, token in zip(spec.tokens, cells[::2], cells[1::2], strict=True):
                    if token is None or not token.startswith(MARKS):
                        continue
                    counts["values"] += 1
                    try:
                        made = rewriter.made(name, row, value)
                    except FieldError:
                        made = None
                    if made is None:
                        counts["failed"] += 1
                    elif made == token:
                        counts["same"] += 1
                    else:
                        otherwise.append(f"{spec.table}.{name} row {row}")
    return counts, otherwise
