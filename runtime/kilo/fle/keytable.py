"""The key table: wrapped data keys, their states and their message counters, in PostgreSQL.

A look-up is rare (once a tenant and cache age, and once a reserved block of messages), so each takes a
short connection of its own: nothing is shared between threads, and nothing survives a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.audit.log import append
from kilo.fle.errors import (
    FieldError,
    KeyExhausted,
    KeyRetired,
    KeyTableDenied,
    KeyTableUnavailable,
    SecretInUse,
)

DATA = "field-data"
INDEX = "field-index"

NewEntry = tuple[str, str, Mapping[str, Any]]
"""Actor, action and details of an entry of the audit log."""

MESSAGE_LIMITS = {1: 1 << 32, 2: 1 << 48}
"""Messages a key may encrypt, by format. v1's random 96-bit nonces: 2**32 (NIST SP 800-38D, section 8.3).
v2's 192-bit nonces allow 2**80 at the same risk (C2SP XAES-256-GCM); 2**48 is our own ceiling."""


@dataclass(frozen=True, slots=True, repr=False)
class Wrap:
    """A data key as one KMS key wrapped it."""

    provider: str
    kms_key: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A data key's row, with its wraps in the order they were made.

    ``digest`` is that of the secret (:func:`kilo.fle.wraps.secret_digest`); a key from before there were
    digests has none until it is adopted.
    """

    id: int
    tenant: str
    purpose: str
    format: int
    version: int
    state: str
    wraps: tuple[Wrap, ...]
    digest: bytes | None = None

    def numbered(self, key_id: int, version: int) -> KeyRow:
        """The row with a number and a version."""
        return replace(self, id=key_id, version=version)

    def with_digest(self, digest: bytes) -> KeyRow:
        """The row with a digest."""
        return replace(self, digest=digest)

    def with_wraps(self, wraps: tuple[Wrap, ...]) -> KeyRow:
        """The row with other wraps."""
        return replace(self, wraps=wraps)


@dataclass(frozen=True, slots=True)
class TenantRows:
    """All of a tenant's keys, the oldest version that readers may use, and what is known of its fields.

    Attributes:
        scope: the fields that writers encrypt, whatever the stage's configuration says.
        plain_accepted: the fields of which readers take plain values too, while a rotation moves them.
        noted: every field of which encrypted values may lie somewhere.
    """

    keys: tuple[KeyRow, ...]
    minimum_version: int
    shredded: bool
    scope: frozenset[str] = frozenset()
    plain_accepted: frozenset[str] = frozenset()
    noted: frozenset[str] = frozenset()

    def active(self, purpose: str) -> KeyRow | None:
        """The key that writers of ``purpose`` use."""
        return next((key for key in self.keys if key.purpose == purpose and key.state == "active"), None)


_TRIES = 5
"""How often a key is made anew because another maker took its version."""

_KEYS = """
SELECT k.id, k.tenant, k.purpose, k.format, k.version, k.state, k.digest, w.provider, w.kms_key, w.wrapped
FROM fle_keys k LEFT JOIN fle_wraps w ON w.key_id = k.id
WHERE k.tenant = %s ORDER BY k.version, k.id, w.created_at, w.kms_key
"""


_INSERT = """
INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest, activated_at)
VALUES (%(id)s, %(tenant)s, %(purpose)s, %(format)s, %(version)s, %(state)s, %(limit)s, %(digest)s,
        CASE WHEN %(state)s = 'active' THEN now() END)
"""

_WRAP = "INSERT INTO fle_wraps (key_id, provider, kms_key, wrapped) VALUES (%s, %s, %s, %s)"

_RESERVE = """
WITH before AS (SELECT id, messages_reserved AS had FROM fle_keys WHERE id = %(id)s FOR UPDATE)
UPDATE fle_keys k SET messages_reserved = least(k.messages_reserved + %(more)s, k.message_limit)
FROM before
WHERE k.id = before.id AND before.had < k.message_limit AND k.state NOT IN ('retired', 'destroyed')
RETURNING k.messages_reserved - before.had, k.state
"""


class KeyTable:
    """Reads and changes the key table at ``database_url``.

    Every method raises :class:`KeyTableUnavailable` when the database can't be reached or fails, and
    :class:`KeyTableDenied` when the role may not do that.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def __repr__(self) -> str:
        return "KeyTable(…)"

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[TupleRow]]:
        """One transaction on a connection of its own."""
        problem: FieldError
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                yield connection
        except psycopg.Error as error:
            # The driver's message can hold the connection string or a row: its SQLSTATE says enough.
            kind = (
                KeyTableDenied
                if isinstance(error, psycopg.errors.InsufficientPrivilege)
                else KeyTableUnavailable
            )
            problem = kind(detail=f"{type(error).__name__} {error.sqlstate or ''}".strip())
        else:
            return
        raise problem

    def read(self, tenant: str) -> TenantRows:
        """All keys of ``tenant``."""
        with self.transaction() as connection:
            rows = connection.execute(_KEYS, (tenant,)).fetchall()
            floor = connection.execute(
                "SELECT minimum_version, shredded_at IS NOT NULL FROM fle_tenants WHERE tenant = %s",
                (tenant,),
            ).fetchone()
            fields: list[tuple[str, bool, bool]] = connection.execute(
                "SELECT field, encrypted, plain_accepted FROM fle_scope WHERE tenant = %s", (tenant,)
            ).fetchall()
        keys: dict[int, KeyRow] = {}
        for *head, digest, provider, kms_key, wrapped in rows:
            known = keys.get(head[0])
            wraps = known.wraps if known else ()
            if wrapped is not None:
                wraps = (*wraps, Wrap(provider, kms_key, wrapped))
            keys[head[0]] = KeyRow(*head, wraps=wraps, digest=digest)
        minimum, shredded = floor or (0, False)
        return TenantRows(
            tuple(keys.values()),
            minimum,
            shredded,
            frozenset(field for field, encrypted, _ in fields if encrypted),
            frozenset(field for field, _, accepted in fields if accepted),
            frozenset(field for field, *_ in fields),
        )

    def note_scope(self, tenant: str, field: str) -> None:
        """Note that values of ``field`` are stored encrypted from now on."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO fle_scope (tenant, field) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (tenant, field),
            )

    def owner(self, key_id: int) -> str | None:
        """The tenant that key ``key_id`` belongs to."""
        with self.transaction() as connection:
            row = connection.execute("SELECT tenant FROM fle_keys WHERE id = %s", (key_id,)).fetchone()
        return row[0] if row else None

    def create(
        self, new: KeyRow, wrapped: Callable[[KeyRow], Sequence[Wrap]], entry: NewEntry | None = None
    ) -> int:
        """Add a key with its wraps and its entry in the audit log, and return its id.

        A tenant has one active and one pending key of a purpose: when another process makes it at the same
        moment, that one's id is returned.

        Args:
            new: the key; its number and version are given here.
            wrapped: makes the wraps, which are bound to number and version; called outside of transactions.
            entry: a further entry of the audit log, in the same transaction; its details name the key.

        Raises:
            SecretInUse: another key has this secret.
        """
        for _ in range(_TRIES):
            with self.transaction() as connection:
                if (existing := _existing(connection, new)) is not None:
                    return existing
                number = connection.execute("SELECT nextval('fle_keys_id')").fetchone()
                row = new.numbered(number[0] if number else 0, _next_version(connection, new))
            wraps = wrapped(row)
            with self.transaction() as connection:
                # Two makers take turns, so versions have no gaps and the second sees the first's active key.
                connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended('fle-key/' || %s || '/' || %s, 0))",
                    (row.tenant, row.purpose),
                )
                if (existing := _existing(connection, row)) is not None:
                    return existing
                if _next_version(connection, row) == row.version:
                    _insert(connection, row, wraps)
                    if entry is not None:
                        actor, action, details = entry
                        append(connection, actor, action, f"tenant/{row.tenant}", {"key": row.id, **details})
                    return row.id
        raise KeyTableUnavailable(new.tenant, detail="others make keys of this tenant all the time")

    def replace_wraps(self, old: KeyRow, row: KeyRow) -> bool:
        """Put the wraps of ``row`` in place of those of ``old``, and its digest where the key had none.

        Returns whether it did: a key that changed meanwhile, or was retired, stays as it is.
        """
        with self.transaction() as connection:
            found = connection.execute(
                "SELECT digest FROM fle_keys WHERE id = %s AND state NOT IN ('retired', 'destroyed')"
                " FOR UPDATE",
                (row.id,),
            ).fetchone()
            if found is None or found[0] != old.digest:
                return False
            if old.digest is None:
                _refuse_known(connection, row)
                connection.execute("UPDATE fle_keys SET digest = %s WHERE id = %s", (row.digest, row.id))
            connection.execute("DELETE FROM fle_wraps WHERE key_id = %s", (row.id,))
            for wrap in row.wraps:
                connection.execute(_WRAP, (row.id, wrap.provider, wrap.kms_key, wrap.wrapped))
            _note(connection, "rewrap" if old.digest else "adopt-key", row, {})
        return True

    def reserve(self, key_id: int, messages: int) -> tuple[int, bool]:
        """Reserve up to ``messages`` for this process; (how many it got, whether the key is active).

        Raises:
            KeyExhausted: the key's limit is reached.
            KeyRetired: the key was retired or destroyed since the process fetched it.
        """
        with self.transaction() as connection:
            row = connection.execute(_RESERVE, {"id": key_id, "more": messages}).fetchone()
            if row is not None:
                return row[0], row[1] == "active"
            state = connection.execute("SELECT state FROM fle_keys WHERE id = %s", (key_id,)).fetchone()
        raise (KeyRetired if state and state[0] in {"retired", "destroyed"} else KeyExhausted)(key_id=key_id)


def _existing(connection: psycopg.Connection[TupleRow], row: KeyRow) -> int | None:
    if row.state not in {"active", "pending"}:
        return None
    found = connection.execute(
        "SELECT id FROM fle_keys WHERE tenant = %s AND purpose = %s AND state = %s",
        (row.tenant, row.purpose, row.state),
    ).fetchone()
    return found[0] if found else None


def _next_version(connection: psycopg.Connection[TupleRow], row: KeyRow) -> int:
    found = connection.execute(
        "SELECT coalesce(max(version), 0) + 1 FROM fle_keys WHERE tenant = %s AND purpose = %s",
        (row.tenant, row.purpose),
    ).fetchone()
    return found[0] if found else 1


def _refuse_known(connection: psycopg.Connection[TupleRow], row: KeyRow) -> None:
    known = connection.execute("SELECT id FROM fle_keys WHERE digest = %s", (row.digest,)).fetchone()
    if known is not None:
        raise SecretInUse(row.tenant, key_id=known[0])


def _insert(connection: psycopg.Connection[TupleRow], row: KeyRow, wraps: Sequence[Wrap]) -> None:
    _refuse_known(connection, row)
    connection.execute(
        _INSERT,
        {
            "id": row.id,
            "tenant": row.tenant,
            "purpose": row.purpose,
            "format": row.format,
            "version": row.version,
            "state": row.state,
            "limit": MESSAGE_LIMITS[row.format],
            "digest": row.digest,
        },
    )
    for wrap in wraps:
        connection.execute(_WRAP, (row.id, wrap.provider, wrap.kms_key, wrap.wrapped))
    _note(connection, "make-key", row, {"state": row.state})


def _note(
    connection: psycopg.Connection[TupleRow], action: str, row: KeyRow, more: Mapping[str, str]
) -> None:
    """Append what was done to a key to the audit log; the actor is the database's role."""
    found = connection.execute("SELECT session_user").fetchone()
    details = {
        "key": row.id,
        "purpose": row.purpose,
        "version": row.version,
        "format": row.format,
        "digest": (row.digest or b"").hex(),
        **more,
    }
    append(connection, f"role/{found[0] if found else ''}", action, f"tenant/{row.tenant}", details)
