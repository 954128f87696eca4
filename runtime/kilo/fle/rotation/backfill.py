"""Re-encrypting rows online: bounded batches, compare and swap, any number of workers, resumable.

A worker claims the next range of rows by moving the pass's position, converts what it reads without
holding a lock, and writes with a compare and swap: a row that somebody else changed meanwhile is left
for the next pass. A worker that is killed loses at most its claimed range, which the next pass finds,
since passes repeat until one finds nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.rotation.arrays import bytea_array, text_array
from kilo.fle.rotation.rewrite import Rewriter

_BEGIN_SCAN = """
INSERT INTO fle_rotation_passes (plan_hash, table_name, direction, pass) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_LOCK_SCAN = """
SELECT next_row, exhausted FROM fle_rotation_passes
WHERE plan_hash = %s AND table_name = %s AND direction = %s AND pass = %s FOR UPDATE
"""
_MOVE_SCAN = """
UPDATE fle_rotation_passes SET next_row = coalesce(%s, next_row), exhausted = %s
WHERE plan_hash = %s AND table_name = %s AND direction = %s AND pass = %s
"""
_RECORD = """
INSERT INTO fle_rotation_batches
    (plan_hash, table_name, direction, pass, rows_read, rows_changed, digest, evidence)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s::bytea[])
"""


@dataclass
class Progress:
    """What a worker did."""

    read: int = 0
    changed: int = 0
    lost_races: int = 0
    failed: set[str] = field(default_factory=set[str])
    """Values that can't be decrypted, each once however many passes meet it."""


@dataclass(frozen=True, slots=True)
class Work:
    """One rotation, one way.

    Attributes:
        plan_hash: which rotation.
        direction: ``forward`` or ``back``.
        batch_rows: rows a batch reads at most.
        rows_per_second: a limit on one worker, or ``None``.
    """

    plan_hash: str
    direction: str
    batch_rows: int = 2000
    rows_per_second: float | None = None


@contextmanager
def worker_connection(database_url: str) -> Generator[psycopg.Connection[TupleRow]]:
    """A connection for one worker, which does not wait until its batches are on disk.

    A crash of the server may take the last batches, and their evidence with them: the next pass does them
    again. What the audit log says of them is flushed when it is said, and all that came before it.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        yield connection


class Backfill:
    """One worker. ``connection`` is its own, in autocommit mode; ``may_go_on`` is asked before each batch."""

    def __init__(
        self,
        connection: psycopg.Connection[TupleRow],
        rewriter: Rewriter,
        work: Work,
        may_go_on: Callable[[], bool],
    ) -> None:
        self.connection, self.rewriter, self.work, self.may_go_on = connection, rewriter, work, may_go_on
        self.progress = Progress()
        self._due = time.monotonic()

    def run(self, on_batch: Callable[[Progress], None]) -> bool:
        """Make passes until one finds nothing to do; ``False`` when it was stopped before.

        From the second pass on, what is found was written since, by writers with the old key in memory.
        Nothing is gained by being quick then, so passes rest for longer than they take.
        """
        first, whole = self._first_pass()
        number = first
        while True:
            began = time.monotonic()
            found = self._pass(number, on_batch)
            if found is None:
                return False
            if found == 0 and (whole or number > first):
                return True
            if number > first and not self._rest(min(30.0, max(1.0, 4 * (time.monotonic() - began)))):
                return False
            number += 1

    def _rest(self, seconds: float) -> bool:
        """Wait; ``False`` when it was stopped meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
            if not self.may_go_on():
                return False
        return True

    def _key(self, number: int) -> tuple[str, str, str, int]:
        return (self.work.plan_hash, self.rewriter.columns.spec.table, self.work.direction, number)

    def _first_pass(self) -> tuple[int, bool]:
        """Where to go on, and whether that looks at every row: a pass that was stopped half-way does not."""
        row = self.connection.execute(
            "SELECT pass, exhausted, next_row IS NULL FROM fle_rotation_passes"
            " WHERE plan_hash = %s AND table_name = %s AND direction = %s ORDER BY pass DESC LIMIT 1",
            self._key(0)[:3],
        ).fetchone()
        # A pass that is through may have lost a range with a worker that died: look at everything again.
        if row is None or row[1]:
            return (row[0] + 1 if row else 1), True
        return row[0], row[2]

    def _pass(self, number: int, on_batch: Callable[[Progress], None]) -> int | None:
        """Rows that this pass found to change; ``None`` when it was stopped."""
        found = 0
        while True:
            if not self.may_go_on():
                return None
            claimed = self._claim(number)
            if claimed is None:
                return found
            rewritten = self._batch(number, *claimed)
            found += rewritten
            on_batch(self.progress)
            self._keep_to_rate(rewritten)

    def _keep_to_rate(self, rewritten: int) -> None:
        """Wait until the next batch is due. What a slow batch lost is made up for, up to a second of it.

        A batch of rows that are only looked at, as in the last pass, counts as a fifth of it.
        """
        if not self.work.rows_per_second:
            return
        now = time.monotonic()
        counted = max(rewritten, self.work.batch_rows / 5)
        self._due = max(self._due, now - 1.0) + counted / self.work.rows_per_second
        time.sleep(max(0.0, self._due - now))

    def _claim(self, number: int) -> tuple[str | None, str] | None:
        """The next range of rows, (after, upto]; ``None`` when the pass is through."""
        key = self._key(number)
        with self.connection.transaction():
            self.connection.execute(_BEGIN_SCAN, key)
            row = self.connection.execute(_LOCK_SCAN, key).fetchone()
            if row is None or row[1]:
                return None
            after: str | None = row[0]
            last = self.connection.execute(
                self.rewriter.columns.boundary(after),
                {"tenant": self.rewriter.tenant, "after": after, "size": self.work.batch_rows},
            ).fetchone()
            upto: str | None = last[0] if last else None
            self.connection.execute(_MOVE_SCAN, (upto, upto is None, *key))
        return None if upto is None else (after, upto)

    def _batch(self, number: int, after: str | None, upto: str) -> int:
        """Convert the rows of a range; the number of rows that needed it."""
        columns, tenant = self.rewriter.columns, self.rewriter.tenant
        done = self.rewriter.done()
        rows = self.connection.execute(
            columns.select(after, upto, skip_prefixes=bool(done)),
            {"tenant": tenant, "after": after, "upto": upto, "done": done},
        ).fetchall()
        self.progress.read += len(rows)
        ids: list[str] = [row[0] for row in rows]
        found = self.rewriter.rewrite(ids, rows)
        self.progress.failed.update(f"{columns.spec.table}: {each}" for each in found.failed)
        if not found.touched:
            return 0
        kept = sorted(found.touched)
        parameters: dict[str, Any] = {
            name: text_array([values[at] for at in kept]) for name, values in found.arrays.items()
        }
        parameters |= {"tenant": tenant, "rows": text_array([ids[at] for at in kept])}
        digest = sha256(b"".join(found.evidence)).digest()
        evidence = bytea_array(found.evidence)
        with self.connection.transaction():
            swapped = self.connection.execute(columns.swap(), parameters).rowcount
            self.connection.execute(_RECORD, (*self._key(number), len(kept), swapped, digest, evidence))
        self.progress.changed += swapped
        self.progress.lost_races += len(kept) - swapped
        return len(kept)
