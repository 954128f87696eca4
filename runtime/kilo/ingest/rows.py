"""The two rows of each event, written by one statement, and what is stored under a key already.

One statement is one round trip and one transaction, whether for one event or a thousand. The outbox's
trigger decides what is new, and only that becomes a business row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from kilo.ingest.request import IncomingEvent
from kilo.outbox import strict_json
from kilo.sensitive import PayloadCipher, hide, is_same, without

_INSERT = """
WITH new AS (
    INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, traceparent,
                        content_digest)
    SELECT given.tenant, given.aggregate, given.aggregate_id, given.kind, given.payload::jsonb,
           given.fingerprint, given.traceparent, decode(given.content_digest, 'hex')
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[])
        AS given (tenant, aggregate, aggregate_id, kind, payload, fingerprint, traceparent, content_digest)
    RETURNING fingerprint, tenant, aggregate, aggregate_id, kind, payload
)
INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)
SELECT fingerprint, tenant, aggregate, aggregate_id, kind, payload FROM new
RETURNING fingerprint
"""
_DIGESTS = (
    "SELECT fingerprint, encode(content_digest, 'hex') FROM outbox_fingerprints"
    # A fingerprint is TENANT/KEY here; another writer's tenant may have the same.
    " WHERE fingerprint = ANY(%s::text[]) AND tenant = split_part(fingerprint, '/', 1)"
)
# A key that is used again after its window is an event of its own, with a row of its own.
_EVENT = (
    "SELECT tenant, aggregate, aggregate_id, kind, payload::text FROM events WHERE fingerprint = %s"
    " ORDER BY received_at DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A checked event as it is stored.

    Attributes:
        values: the columns of the outbox that a writer gives, in the statement's order.
        plain: the payload's canonical form, when a part of it is encrypted: what a retry is compared by.
    """

    values: tuple[str, str, str, str, str, str, str, str]
    plain: bytes | None

    @property
    def tenant(self) -> str:
        """Whose event it is."""
        return self.values[0]

    @property
    def ordering_key(self) -> tuple[str, str, str]:
        """Tenant, aggregate and id; rows of one are stored in order."""
        return self.values[:3]

    @property
    def fingerprint(self) -> str:
        """The event's idempotency key with its tenant."""
        return self.values[5]

    @property
    def digest(self) -> str:
        """SHA-256 of what is not sensitive, in hexadecimal digits."""
        return self.values[7]

    @property
    def size(self) -> int:
        """Bytes of the payload, roughly."""
        return len(self.values[4])


async def row_of(cipher: PayloadCipher, event: IncomingEvent, traceparent: str) -> Row:
    """Encrypt what the tenant's configuration says, and note what equal content means.

    Args:
        cipher: the tenants' keys.
        event: what is to be stored.
        traceparent: of the span that stores it.

    Raises:
        FieldError: the tenant's key can't be used now.
    """
    fields = await cipher.protected_fields(event.tenant)
    text = event.text
    if fields:
        text = strict_json.write(await hide(cipher, event.tenant, event.fingerprint, event.payload))
    # Sensitive values stay out of the digest: whoever sees it could try values until one fits.
    visible = strict_json.canonical(without(fields, event.payload) if fields else event.payload)
    named = (event.tenant, event.aggregate, event.aggregate_id, event.kind)
    # The canonical form of an array of the five, as kilo.outbox.enqueue.content_digest has it.
    digest = hashlib.sha256(strict_json.canonical(named)[:-1] + b"," + visible + b"]").digest()
    plain = strict_json.canonical(event.payload) if fields else None
    return Row((*named, text, event.fingerprint, traceparent, digest.hex()), plain)


async def insert(connection: AsyncConnection[Any], rows: Sequence[Row]) -> set[str]:
    """Write both rows of each that is new; returns the fingerprints of those.

    Raises:
        psycopg.Error: nothing is written; ``outbox_fingerprint_content`` when one is known with another
            content.
    """
    # As every bulk writer sorts, so that two of them can't deadlock over their locks.
    ordered = sorted(rows, key=lambda row: row.values[:3])
    columns = [array_text(column) for column in zip(*[row.values for row in ordered], strict=True)]
    cursor = await connection.execute(_INSERT, columns, prepare=True)
    return {fingerprint for (fingerprint,) in await cursor.fetchall()}


def array_text(values: Sequence[str]) -> str:
    """An array of text as PostgreSQL reads it (PostgreSQL 17, section 8.15.2); the driver takes longer.

    None of ``values`` may hold U+0000, which no text of PostgreSQL does.
    """
    joined = "\x00".join(values).replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + joined.replace("\x00", '","') + '"}'


async def known_digests(connection: AsyncConnection[Any], rows: Sequence[Row]) -> dict[str, str]:
    """What the outbox has under the fingerprints of ``rows``."""
    cursor = await connection.execute(_DIGESTS, ([row.fingerprint for row in rows],))
    return dict(await cursor.fetchall())


async def is_stored(
    connection: AsyncConnection[Any], cipher: PayloadCipher, row: IncomingEvent | Row
) -> bool | None:
    """Whether what is stored under a fingerprint is this event; none when nothing is.

    Raises:
        FieldError: it can't be decrypted now.
    """
    if isinstance(row, IncomingEvent):
        place, given = (row.tenant, row.aggregate, row.aggregate_id, row.kind), row.payload
    else:
        place, given = row.values[:4], strict_json.parse(row.plain or row.values[4].encode())
    cursor = await connection.execute(_EVENT, (row.fingerprint,))
    found = await cursor.fetchone()
    if found is None:
        return None
    if tuple(found[:4]) != place:
        return False
    return await is_same(cipher, row.tenant, row.fingerprint, strict_json.parse(found[4]), given)
