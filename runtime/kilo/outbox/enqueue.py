"""Writes events into the outbox, inside the caller's own transaction.

Everything that makes the outbox right (turns per aggregate, one row a fingerprint, who publishes) happens
in the database's trigger, so what is here is an INSERT, and SQL of another language's does as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from kilo.errors import BadInput
from kilo.outbox import strict_json

COLUMNS = (
    "tenant",
    "aggregate",
    "aggregate_id",
    "kind",
    "payload",
    "fingerprint",
    "traceparent",
    "content_digest",
)
"""What a writer gives; the database does the rest."""

_INSERT = (
    "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, traceparent,"
    " content_digest) VALUES (%s, %s, %s, %s, %s::jsonb, %s, %s, %s) RETURNING id"
)
_OUTBOX_CONTENT = "outbox_fingerprint_content"
_CONSTRAINTS = {
    "outbox_aggregate_is_a_subject_token": "aggregate: one token of lower-case letters, digits, - and _,"
    " beginning with a letter, at most 63 characters",
    "outbox_aggregate_id_is_printable": "aggregate_id: 1 to 200 printable ASCII characters without spaces",
    "outbox_kind_is_a_name": "kind: lower-case letters, digits, ., - and _, beginning with a letter, at most"
    " 127 characters",
    "outbox_fingerprint_is_printable": "fingerprint: 1 to 255 printable ASCII characters without spaces",
    "outbox_tenant_is_a_label": "tenant: a DNS label of at most 40 characters",
    "outbox_traceparent_is_w3c": "traceparent: as W3C Trace Context has it",
    "outbox_payload_within_limit": "payload: at most 1 MiB of JSON",
}


class FingerprintConflict(BadInput):
    """The fingerprint was used before, for another content. The transaction can only be rolled back."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        tenant: whose event it is.
        aggregate: the kind of thing that it happened to; a token of the bus's subject.
        aggregate_id: which thing. Events of one aggregate and id are delivered in order.
        kind: what happened, such as ``order.paid``.
        payload: a JSON value as Python has it, or JSON text.
        fingerprint: the idempotency key, unique over all tenants; derived when not given.
        traceparent: of the trace that this belongs to (W3C Trace Context).
        content_digest: what equal content means, when ``payload`` holds ciphertext, which differs every
            time; by default a SHA-256 over everything but the trace.
    """

    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: Mapping[str, Any] | Sequence[Any] | str
    fingerprint: str | None = None
    traceparent: str | None = None
    content_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of an event: its row's id, or none when its fingerprint was there with the same content."""

    fingerprint: str
    id: int | None

    @property
    def duplicate(self) -> bool:
        """Whether it was there already."""
        return self.id is None


def content_digest(tenant: str, aggregate: str, aggregate_id: str, kind: str, payload: Any) -> bytes:
    """SHA-256 over the canonical form (RFC 8785) of an array of the five."""
    return hashlib.sha256(strict_json.canonical([tenant, aggregate, aggregate_id, kind, payload])).digest()


def fingerprint_of(event: Event) -> str:
    """The event's fingerprint: the given one, or ``TENANT/sha256-HEX`` of its content."""
    if event.fingerprint is not None:
        return event.fingerprint
    return f"{event.tenant}/sha256-{_digest(event).hex()}"


def enqueue(connection: psycopg.Connection[Any], event: Event) -> Enqueued:
    """Write ``event`` in the transaction that ``connection`` is in.

    Raises:
        FingerprintConflict: its fingerprint was used for another content.
        BadInput: a field is not what the outbox takes; the message names it.
        psycopg.Error: the database refuses or can't be reached.
    """
    fingerprint, values = values_of(event)
    try:
        row = connection.execute(_INSERT, values).fetchone()
    except psycopg.IntegrityError as error:
        raise _explained(error, fingerprint) from error
    return Enqueued(fingerprint, row[0] if row else None)


async def enqueue_async(connection: psycopg.AsyncConnection[Any], event: Event) -> Enqueued:
    """As :func:`enqueue`, for asyncio."""
    fingerprint, values = values_of(event)
    try:
        row = await (await connection.execute(_INSERT, values)).fetchone()
    except psycopg.IntegrityError as error:
        raise _explained(error, fingerprint) from error
    return Enqueued(fingerprint, row[0] if row else None)


def enqueue_many(connection: psycopg.Connection[Any], events: Iterable[Event]) -> list[Enqueued]:
    """Write many events, pipelined; returns what became of each, in the order given.

    Events of one aggregate keep their order. Each aggregate that occurs takes one advisory lock until the
    transaction ends, so ``max_locks_per_transaction`` bounds how many fit into one: split beyond some
    thousands.

    Raises:
        As :func:`enqueue`.
    """
    ordered, values = _many(events)
    with connection.cursor() as cursor:
        try:
            cursor.executemany(_INSERT, values, returning=True)
        except psycopg.IntegrityError as error:
            raise _explained(error, "one of the given") from error
        ids: list[int | None] = []
        while True:
            row = cursor.fetchone()
            ids.append(row[0] if row else None)
            if not cursor.nextset():
                break
    return _in_given_order(ordered, ids)


async def enqueue_many_async(
    connection: psycopg.AsyncConnection[Any], events: Iterable[Event]
) -> list[Enqueued]:
    """As :func:`enqueue_many`, for asyncio."""
    ordered, values = _many(events)
    async with connection.cursor() as cursor:
        try:
            await cursor.executemany(_INSERT, values, returning=True)
        except psycopg.IntegrityError as error:
            raise _explained(error, "one of the given") from error
        ids: list[int | None] = []
        while True:
            row = await cursor.fetchone()
            ids.append(row[0] if row else None)
            if not cursor.nextset():
                break
    return _in_given_order(ordered, ids)


def _many(events: Iterable[Event]) -> tuple[list[tuple[int, str]], list[tuple[Any, ...]]]:
    # Everyone takes the aggregates' locks in the same order, so that two bulk writers can't deadlock.
    numbered = sorted(enumerate(events), key=lambda each: (each[1].aggregate, each[1].aggregate_id))
    prepared = [(number, *values_of(event)) for number, event in numbered]
    return [(number, fingerprint) for number, fingerprint, _ in prepared], [values for *_, values in prepared]


def _in_given_order(ordered: list[tuple[int, str]], ids: list[int | None]) -> list[Enqueued]:
    results = [Enqueued("", None)] * len(ordered)
    for (number, fingerprint), row_id in zip(ordered, ids, strict=False):
        results[number] = Enqueued(fingerprint, row_id)
    return results


def values_of(event: Event) -> tuple[str, tuple[Any, ...]]:
    """The event's fingerprint, and its values for :data:`COLUMNS`.

    Raises:
        BadInput: the payload is not what the outbox takes.
    """
    payload = event.payload if isinstance(event.payload, str) else strict_json.write(event.payload)
    fingerprint = fingerprint_of(event)
    return fingerprint, (
        event.tenant,
        event.aggregate,
        event.aggregate_id,
        event.kind,
        payload,
        fingerprint,
        event.traceparent,
        event.content_digest or _digest(event),
    )


def _digest(event: Event) -> bytes:
    try:
        payload = strict_json.parse(event.payload) if isinstance(event.payload, str) else event.payload
    except strict_json.NotStrict as error:
        msg = f"payload{error.pointer}: {error.problem}"
        raise BadInput(msg) from error
    return content_digest(event.tenant, event.aggregate, event.aggregate_id, event.kind, payload)


def _explained(error: psycopg.IntegrityError, fingerprint: str) -> Exception:
    return explained(error.diag.constraint_name or "", error.diag.message_primary or fingerprint) or error


def explained(constraint: str, message: str) -> Exception | None:
    """What the outbox's ``constraint`` means for whoever wrote the event; none when it is another's."""
    if constraint == _OUTBOX_CONTENT:
        return FingerprintConflict(f"{message}; give a new event a key of its own")
    if constraint in _CONSTRAINTS:
        return BadInput(_CONSTRAINTS[constraint])
    return None
