"""Evidence that plaintexts are the same after a rotation as before it.

Of each value that the backfill converts it records two digests, keyed for this rotation alone: one of the
value's place and the text that it stored, and one of its place and the plaintext that the old text gave.
Verification reads the tables again: where the text is the one that the backfill stored, the plaintext that
it gives now must have the digest of before. Where it is another text, somebody wrote since, which is
counted. Without the rotation's key the digests tell nothing, so guesses can't be tested against them.

The digest is BLAKE2b (RFC 7693) with a key, cut to 16 bytes. Over a column they are added modulo 2**128: the
sum does not depend on the order, and can be formed by neither side without the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.formats import RowId, length_prefixed, row_data

DIGEST_BYTES = 16
SHOWN = 20
"""Places of values that read otherwise than before, in a message."""

_GATHER = """
CREATE TEMPORARY TABLE fle_evidence ON COMMIT DROP AS
SELECT DISTINCT substr(each, 1, 16) AS stored, substr(each, 17) AS plain
FROM fle_rotation_batches, unnest(evidence) AS each
WHERE plan_hash = %s AND table_name = %s AND direction = %s
"""
_COMPARE = """
SELECT number, e.plain FROM unnest(%s::bytea[]) WITH ORDINALITY AS found(stored, number)
JOIN fle_evidence e USING (stored)
"""


_UNCHANGED = """
SELECT count(*) FROM (SELECT DISTINCT substr(each, 17) FROM fle_rotation_batches, unnest(evidence) AS each
                      WHERE plan_hash = %(plan)s AND direction = 'forward'
                      INTERSECT
                      SELECT DISTINCT substr(each, 17) FROM fle_rotation_batches, unnest(evidence) AS each
                      WHERE plan_hash = %(plan)s AND direction = 'back') AS both_ways
"""


def unchanged(connection: psycopg.Connection[TupleRow], plan_hash: str) -> int:
    """How many values gave the same plaintext in the same place on the way forward and on the way back."""
    row = connection.execute(_UNCHANGED, {"plan": plan_hash}).fetchone()
    return int(row[0]) if row else 0


class Evidence:
    """Makes the digests of one table's values under a rotation's ``key``; ``context`` names the table."""

    __slots__ = ("_context", "_key")

    def __init__(self, key: bytes, context: str) -> None:
        self._key, self._context = key, context.encode()

    def stored(self, name: str, row: RowId, text: str) -> bytes:
        """The first of the two: of one value's place and stored text."""
        return self.of_column(name, [row], [text], [b""])[0][:DIGEST_BYTES]

    def of_column(
        self, name: str, rows: Sequence[RowId], stored: Sequence[str], plain: Sequence[bytes]
    ) -> list[bytes]:
        """Both digests of each value: of its stored text, and of its plaintext."""
        key, place = self._key, length_prefixed(self._context, name.encode())
        at_stored, at_plain = b"\x00" + place, b"\x01" + place
        return [
            blake2b(at_stored + (at := row_data(row)) + text.encode(), key=key, digest_size=16).digest()
            + blake2b(at_plain + at + data, key=key, digest_size=16).digest()
            for row, text, data in zip(rows, stored, plain, strict=True)
        ]


@dataclass
class Column:
    """What verification found in one column."""

    values: int = 0
    failed: int = 0
    plain: int = 0
    same: int = 0
    """Values that read as they did before they were converted."""
    before: int = 0
    after: int = 0
    otherwise: list[str] = field(default_factory=list[str])

    def as_details(self) -> dict[str, int | str]:
        """For the audit log: counts, and the sums of before and after over the values that were converted."""
        return {
            "values": self.values,
            "same": self.same,
            "written_since": self.values - self.failed - self.same - len(self.otherwise),
            "before": _hex(self.before),
            "after": _hex(self.after),
        }


class Comparison:
    """One table's values against what the backfill recorded of them on its way ``forward`` or ``back``.

    ``connection`` is in a transaction.
    """

    def __init__(
        self, connection: psycopg.Connection[TupleRow], plan_hash: str, table: str, direction: str
    ) -> None:
        self._connection, self._table = connection, table
        connection.execute("DROP TABLE IF EXISTS pg_temp.fle_evidence")
        connection.execute(_GATHER, (plan_hash, table, direction))
        connection.execute("CREATE INDEX ON fle_evidence (stored)")
        connection.execute("ANALYZE fle_evidence")
        row = connection.execute("SELECT count(*) FROM fle_evidence").fetchone()
        self.converted: int = row[0] if row else 0
        self.columns: dict[str, Column] = {}
        self._waiting: list[tuple[str, str, bytes]] = []

    def column(self, name: str) -> Column:
        """The column's counts."""
        return self.columns.setdefault(f"{self._table}.{name}", Column())

    def add(self, name: str, row: str, evidence: bytes) -> None:
        """Compare one value that reads."""
        self._waiting.append((name, row, evidence))
        if len(self._waiting) >= 5000:
            self.flush()

    def flush(self) -> None:
        """Compare what waits."""
        found: list[tuple[int, bytes]] = self._connection.execute(
            _COMPARE, ([each[:DIGEST_BYTES] for *_, each in self._waiting],)
        ).fetchall()
        for number, plain in found:
            name, row, evidence = self._waiting[number - 1]
            column, now = self.column(name), evidence[DIGEST_BYTES:]
            column.before = _add(column.before, plain)
            column.after = _add(column.after, now)
            if now == plain:
                column.same += 1
            else:
                column.otherwise.append(row)
        self._waiting.clear()


def _add(total: int, digest: bytes) -> int:
    return (total + int.from_bytes(digest, "big")) & ((1 << 8 * DIGEST_BYTES) - 1)


def _hex(total: int) -> str:
    return total.to_bytes(DIGEST_BYTES, "big").hex()
