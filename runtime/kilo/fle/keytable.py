"""The key table: wrapped data keys, their states and their message counters, in PostgreSQL.

A look-up is rare (once a tenant and cache age, and once a reserved block of messages), so each takes a
short connection of its own: nothing is shared between threads, and nothing survives a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from kilo.fle.errors import KeyExhausted, KeyTableUnavailable, UnknownKey

DATA = "field-data"
INDEX = "field-index"

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
    """A data key's row, with its wraps in the order they were made."""

    id: int
    tenant: str
    purpose: str
    format: int
    version: int
    state: str
    wraps: tuple[Wrap, ...]


@dataclass(frozen=True, slots=True)
class TenantRows:
    """All of a tenant's keys, the oldest version that readers may use, and whether its scope changes.

    ``scope`` are the fields that lie encrypted, whatever the stage's configuration says.
    """

    keys: tuple[KeyRow, ...]
    minimum_version: int
    moving: str | None
    shredded: bool
    scope: frozenset[str] = frozenset()

    def active(self, purpose: str) -> KeyRow | None:
        """The key that writers of ``purpose`` use."""
        return next((key for key in self.keys if key.purpose == purpose and key.state == "active"), None)


MakeWraps = Callable[[int], list[Wrap]]

_KEYS = """
SELECT k.id, k.tenant, k.purpose, k.format, k.version, k.state, w.provider, w.kms_key, w.wrapped
FROM fle_keys k LEFT JOIN fle_wraps w ON w.key_id = k.id
WHERE k.tenant = %s ORDER BY k.version, k.id, w.created_at, w.kms_key
"""


_INSERT = """
INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, activated_at)
SELECT %(id)s, %(tenant)s, %(purpose)s, %(format)s, coalesce(max(version), 0) + 1, %(state)s,
       %(limit)s, CASE WHEN %(state)s = 'active' THEN now() END
FROM fle_keys WHERE tenant = %(tenant)s AND purpose = %(purpose)s
"""

_WRAP = """
INSERT INTO fle_wraps (key_id, provider, kms_key, wrapped) VALUES (%s, %s, %s, %s)
ON CONFLICT (key_id, provider, kms_key) DO UPDATE SET wrapped = excluded.wrapped, created_at = now()
"""

_RESERVE = """
WITH before AS (SELECT id, messages_reserved AS had FROM fle_keys WHERE id = %(id)s FOR UPDATE)
UPDATE fle_keys k SET messages_reserved = least(k.messages_reserved + %(more)s, k.message_limit)
FROM before WHERE k.id = before.id AND before.had < k.message_limit
RETURNING k.messages_reserved - before.had
"""


class KeyTable:
    """Reads and changes the key table at ``database_url``.

    Every method raises :class:`KeyTableUnavailable` when the database can't be reached or refuses.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def __repr__(self) -> str:
        return "KeyTable(…)"

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[TupleRow]]:
        """One transaction on a connection of its own."""
        problem: str
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                yield connection
        except psycopg.Error as error:
            # The driver's message can hold the connection string or a row: its SQLSTATE says enough.
            problem = f"{type(error).__name__} {error.sqlstate or ''}".strip()
        else:
            return
        raise KeyTableUnavailable(detail=problem)

    def read(self, tenant: str) -> TenantRows:
        """All keys of ``tenant``."""
        with self.transaction() as connection:
            rows = connection.execute(_KEYS, (tenant,)).fetchall()
            floor = connection.execute(
                "SELECT minimum_version, moving, shredded_at IS NOT NULL FROM fle_tenants WHERE tenant = %s",
                (tenant,),
            ).fetchone()
            fields = connection.execute("SELECT field FROM fle_scope WHERE tenant = %s", (tenant,)).fetchall()
        keys: dict[int, KeyRow] = {}
        for *head, provider, kms_key, wrapped in rows:
            known = keys.get(head[0])
            wraps = known.wraps if known else ()
            if wrapped is not None:
                wraps = (*wraps, Wrap(provider, kms_key, wrapped))
            keys[head[0]] = KeyRow(*head, wraps=wraps)
        minimum, moving, shredded = floor or (0, None, False)
        scope = frozenset[str](field for (field,) in fields)
        return TenantRows(tuple(keys.values()), minimum, moving, shredded, scope)

    def note_scope(self, tenant: str, field: str) -> None:
        """Note that values of ``field`` lie encrypted from now on."""
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
        self, tenant: str, purpose: str, state: str, make_wraps: MakeWraps, format_version: int = 2
    ) -> int:
        """Add a key in ``state`` and return its id.

        ``make_wraps`` gets the id, since the wrap is bound to it, and is called before the transaction.
        A tenant has one active and one pending key of a purpose: when another process makes it at the same
        moment, that one's id is returned.
        """
        with self.transaction() as connection:
            row = connection.execute("SELECT nextval('fle_keys_id')").fetchone()
        if row is None:
            raise UnknownKey(tenant)
        key_id: int = row[0]
        wraps = make_wraps(key_id)
        with self.transaction() as connection:
            # Two makers take turns, so versions have no gaps and the second sees the first's active key.
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('fle-key/' || %s || '/' || %s, 0))",
                (tenant, purpose),
            )
            if state in {"active", "pending"}:
                existing = connection.execute(
                    "SELECT id FROM fle_keys WHERE tenant = %s AND purpose = %s AND state = %s",
                    (tenant, purpose, state),
                ).fetchone()
                if existing is not None:
                    return existing[0]
            connection.execute(
                _INSERT,
                {
                    "id": key_id,
                    "tenant": tenant,
                    "purpose": purpose,
                    "format": format_version,
                    "state": state,
                    "limit": MESSAGE_LIMITS[format_version],
                },
            )
            for wrap in wraps:
                connection.execute(_WRAP, (key_id, wrap.provider, wrap.kms_key, wrap.wrapped))
        return key_id

    def replace_wraps(self, key_id: int, wraps: Sequence[Wrap]) -> None:
        """Put new wraps in place of all that the key has, unless it has been destroyed meanwhile."""
        with self.transaction() as connection:
            found = connection.execute(
                "SELECT FROM fle_keys WHERE id = %s AND state <> 'destroyed' FOR UPDATE", (key_id,)
            ).fetchone()
            if found is None:
                return
            for wrap in wraps:
                connection.execute(_WRAP, (key_id, wrap.provider, wrap.kms_key, wrap.wrapped))
            connection.execute(
                "DELETE FROM fle_wraps WHERE key_id = %s AND NOT kms_key = ANY(%s)",
                (key_id, [wrap.kms_key for wrap in wraps]),
            )

    def reserve(self, key_id: int, messages: int) -> int:
        """Reserve up to ``messages`` for this process to encrypt; returns how many it got, at least 1.

        Raises:
            KeyExhausted: the key's limit is reached.
        """
        with self.transaction() as connection:
            row = connection.execute(_RESERVE, {"id": key_id, "more": messages}).fetchone()
        if row is None:
            raise KeyExhausted(key_id=key_id)
        return row[0]
