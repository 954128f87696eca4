"""The hash chain: appending entries and reading them back.

An entry is the canonical JSON (RFC 8785) of its sequence number, time, actor, action, subject and the
hash of the entry before. Its own hash is SHA-256 over a zero byte and that text, which is RFC 6962's
leaf hash: the same leaves make the Merkle tree whose root the checkpoints sign.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, LiteralString

import psycopg
import rfc8785
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from kilo.errors import CheckFailed

GENESIS = bytes(32)
"""What stands for the hash before the first entry."""
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_HOLDER = """
SELECT a.usename, a.pid, a.backend_start::timestamp(0)
FROM pg_locks l JOIN pg_stat_activity a USING (pid),
     LATERAL (SELECT hashtextextended('fle-audit', 0) AS key) k
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND ((l.classid::bigint << 32) | l.objid::bigint) = k.key
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log, as it was hashed."""

    seq: int
    text: str
    hash: bytes

    def fields(self) -> dict[str, Any]:
        """The entry's content."""
        return json.loads(self.text)


def leaf_hash(text: str) -> bytes:
    """RFC 6962, section 2.1: the hash of a leaf."""
    return sha256(b"\x00" + text.encode()).digest()


def append(
    connection: psycopg.Connection[TupleRow],
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any],
) -> Entry:
    """Append an entry inside the caller's transaction, so that it exists exactly when the act does.

    ``details`` must hold no value and no key material: counts, digests, key ids and names only.
    """
    _take_turn(connection, "pg_try_advisory_xact_lock")
    last = connection.execute("SELECT seq, hash FROM fle_audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (last[0] + 1, bytes(last[1])) if last else (0, GENESIS)
    content = {
        "seq": seq,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": dict(details),
        "previous": previous.hex(),
    }
    text = rfc8785.dumps(content).decode()
    entry = Entry(seq, text, leaf_hash(text))
    connection.execute(
        "INSERT INTO fle_audit (seq, entry, hash) VALUES (%s, %s, %s)", (entry.seq, entry.text, entry.hash)
    )
    return entry


def _take_turn(connection: psycopg.Connection[TupleRow], lock: LiteralString) -> None:
    """One writer at a time: the chain has one end.

    Every role of the database may take that lock, and keep it: who does is named, and nobody hangs. It is
    asked for again and again rather than with ``lock_timeout``, which would end the caller's transaction.

    Raises:
        CheckFailed: somebody has kept it for longer than any entry takes.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        row = connection.execute(
            sql.SQL("SELECT {}(hashtextextended('fle-audit', 0))").format(sql.SQL(lock))
        ).fetchone()
        if row and row[0]:
            return
        if time.monotonic() >= until:
            break
        time.sleep(_LOOK_SECONDS)
    row = connection.execute(_HOLDER).fetchone()
    who = f"role {row[0]}, process {row[1]} since {row[2]}" if row else "somebody, who is gone now"
    msg = f"the audit log is held by {who}: nothing can be written to it; end that session and try again"
    raise CheckFailed(msg)


@contextmanager
def standing_still(connection: psycopg.Connection[TupleRow]) -> Generator[None]:
    """Within, nobody appends; and what is told in an entry changes in the transaction that appends it.

    Of a transaction that failed the log stands still until the connection is closed.
    """
    _take_turn(connection, "pg_try_advisory_lock")
    try:
        yield
    finally:
        # Otherwise the server refuses this as well, and its refusal would hide what had failed.
        if connection.info.transaction_status in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
            connection.execute("SELECT pg_advisory_unlock(hashtextextended('fle-audit', 0))")


def read(connection: psycopg.Connection[TupleRow], start: int = 0) -> list[Entry]:
    """Entries from ``start`` on, in their order."""
    rows = connection.execute(
        "SELECT seq, entry, hash FROM fle_audit WHERE seq >= %s ORDER BY seq", (start,)
    ).fetchall()
    return [Entry(seq, text, bytes(digest)) for seq, text, digest in rows]


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1: the Merkle tree hash over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    # Subtrees are merged as soon as two of one size stand side by side, which gives the same tree as
    # the recursive definition without recursing.
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        size, node = 1, leaf
        while stack and stack[-1][0] == size:
            _, left = stack.pop()
            size, node = size * 2, sha256(b"\x01" + left + node).digest()
        stack.append((size, node))
    _, root = stack.pop()
    while stack:
        _, left = stack.pop()
        root = sha256(b"\x01" + left + root).digest()
    return root
