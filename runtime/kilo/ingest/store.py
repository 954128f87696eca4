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
from kilo.sensitive import PayloadCipher, hide, is_same, without

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
_SELECT_EVENT = (
    "SELECT tenant, aggregate, aggregate_id, kind, payload::text FROM events WHERE fingerprint = %s"
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
            except FingerprintConflict:
                # The digest says so, which leaves out what was sensitive at that time: the content decides.
                if not await self._is_stored(event):
                    raise _reused() from None
                return False
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
        # Equal digests leave out what is sensitive.
        if not new and fields and await self._is_stored(event) is False:
            raise _reused()
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

    async def _is_stored(self, event: IncomingEvent) -> bool | None:
        """Whether what is stored under the event's key is this event; none when nothing is."""
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_SELECT_EVENT, (event.fingerprint,))
                row = await cursor.fetchone()
            if row is None:
                return None
            *place, payload = row
            if place != [event.tenant, event.aggregate, event.aggregate_id, event.kind]:
                return False
            return await is_same(
                self._cipher, event.tenant, event.fingerprint, strict_json.parse(payload), event.payload
            )
        except (FieldError, psycopg.OperationalError, PoolTimeout) as error:
            msg = "the key is known, but its event can't be compared now; try again"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=_AGAIN) from error


def _digest(event: IncomingEvent, fields: frozenset[str]) -> bytes:
    # Sensitive values stay out of it: whoever sees a digest of them could try values until one fits.
    open_part = without(fields, event.payload)
    return content_digest(event.tenant, event.aggregate, event.aggregate_id, event.kind, open_part)


def _reused() -> Problem:
    return refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        {"header": KEY_HEADER, "detail": "was used for another event; give each event a key of its own"},
    )
