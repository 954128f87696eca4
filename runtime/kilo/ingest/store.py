"""Stores a checked event: business row and outbox row in one transaction, sensitive fields encrypted."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from kilo.fle import FieldError
from kilo.ingest.problem import Problem, refused
from kilo.ingest.request import KEY_HEADER, IncomingEvent
from kilo.outbox import Event, FingerprintConflict, enqueue_async, strict_json
from kilo.outbox.enqueue import content_digest
from kilo.sensitive import PayloadCipher, hide, reveal, without

_log = logging.getLogger(__name__)
_ATTEMPTS = 4
_INSERT_EVENT = (
    "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
    " VALUES (%s, %s, %s, %s, %s, %s::jsonb)"
    # A key that is used again after its window is a new event.
    " ON CONFLICT (fingerprint) DO UPDATE SET tenant = excluded.tenant, aggregate = excluded.aggregate,"
    " aggregate_id = excluded.aggregate_id, kind = excluded.kind, payload = excluded.payload,"
    " received_at = excluded.received_at"
)

_AGAIN = {"retry-after": "1"}


class EventStore:
    """Stores events through ``pool``, which connects as the ingest role."""

    def __init__(self, pool: AsyncConnectionPool[Any], cipher: PayloadCipher) -> None:
        self._pool = pool
        self._cipher = cipher

    async def store(self, event: IncomingEvent) -> bool:
        """Store ``event``; returns whether it is new. When this returns, it is committed.

        Raises:
            Problem: its key was used for another content, or a part that is needed does not answer.
        """
        try:
            hidden = await hide(self._cipher, event.tenant, event.fingerprint, event.payload)
            fields = await self._cipher.protected_fields(event.tenant)
        except FieldError as error:
            _log.warning("%s", error)
            msg = "the tenant's encryption key can't be used now; try again with the same key"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=_AGAIN) from error
        row = Event(
            tenant=event.tenant,
            aggregate=event.aggregate,
            aggregate_id=event.aggregate_id,
            kind=event.kind,
            payload=strict_json.write(hidden),
            fingerprint=event.fingerprint,
            traceparent=event.traceparent,
            content_digest=_digest(event, fields),
        )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                new = await self._write(row)
                break
            except FingerprintConflict as error:
                raise _reused() from error
            except (
                psycopg.errors.DeadlockDetected,
                psycopg.errors.SerializationFailure,
                psycopg.errors.UniqueViolation,
            ):
                # Others wrote the same aggregate or key at this moment; their outcome is known by now.
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(0.01 * attempt)
            except (psycopg.OperationalError, PoolTimeout) as error:
                msg = (
                    "the database does not answer; nothing is known to be stored, try again with the same key"
                )
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=_AGAIN) from error
        else:
            new = False
        if not new:
            await self._check_same(event, fields)
        return new

    async def _write(self, row: Event) -> bool:
        async with self._pool.connection() as connection, connection.transaction():
            enqueued = await enqueue_async(connection, row)
            if enqueued.duplicate:
                return False
            await connection.execute(
                _INSERT_EVENT,
                (row.fingerprint, row.tenant, row.aggregate, row.aggregate_id, row.kind, row.payload),
            )
        return True

    async def _check_same(self, event: IncomingEvent, fields: frozenset[str]) -> None:
        """Compare the sensitive part too, which the digest leaves out."""
        if not fields:
            return
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT payload::text FROM events WHERE fingerprint = %s", (event.fingerprint,)
                )
                found = await cursor.fetchone()
            if found is None:
                return
            stored = strict_json.parse(found[0])
            plain = await reveal(self._cipher, event.tenant, event.fingerprint, stored)
        except (FieldError, psycopg.OperationalError, PoolTimeout) as error:
            msg = "the key is known, but its event can't be compared now; try again"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=_AGAIN) from error
        if strict_json.canonical(plain) != strict_json.canonical(event.payload):
            raise _reused()


def _digest(event: IncomingEvent, fields: frozenset[str]) -> bytes:
    # Sensitive values stay out of it: whoever sees a digest of them could try values until one fits.
    open_part = without(fields, event.payload)
    return content_digest(event.tenant, event.aggregate, event.aggregate_id, event.kind, open_part)


def _reused() -> Problem:
    return refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        {"header": KEY_HEADER, "detail": "was used for another event; give each event a key of its own"},
    )
