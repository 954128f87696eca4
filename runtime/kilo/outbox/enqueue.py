"""Writes events into the outbox, inside the caller's own transaction.

Everything that makes the outbox right (turns per aggregate, one row a fingerprint, who publishes) happens
in the database's trigger, so what is here is an INSERT, and SQL of another language's does as well.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, cast
from uuid import UUID

from kilo.context import current_traceparent
from kilo.errors import BadInput
from kilo.outbox import strict_json
from kilo.outbox.promised import check_promised

if TYPE_CHECKING:
    # Importing the driver takes ten times as long as all of this; whoever gives a connection has it already.
    import psycopg
    from psycopg.rows import BaseRowFactory

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

_INSERT: LiteralString = (
    "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, traceparent,"
    " content_digest) VALUES (%s, %s, %s, %s, %s::jsonb, %s, %s, %s) RETURNING id"
)
_OUTBOX_CONTENT = "outbox_fingerprint_content"
_OUTBOX_LOCKS = "outbox_locks_within_limit"
_RULES = {
    "tenant": "tenant: a DNS label of at most 40 characters",
    "aggregate": "aggregate: one token of lower-case letters, digits, - and _, beginning with a letter,"
    " at most 63 characters",
    "aggregate_id": "aggregate_id: 1 to 200 printable ASCII characters without spaces",
    "kind": "kind: lower-case letters, digits, ., - and _, beginning with a letter, at most 127 characters",
    "fingerprint": "fingerprint: 1 to 255 printable ASCII characters without spaces",
    "traceparent": "traceparent: as W3C Trace Context has it",
}
_CONSTRAINTS = {
    "outbox_tenant_is_a_label": _RULES["tenant"],
    "outbox_aggregate_is_a_subject_token": _RULES["aggregate"],
    "outbox_aggregate_id_is_printable": _RULES["aggregate_id"],
    "outbox_kind_is_a_name": _RULES["kind"],
    "outbox_fingerprint_is_printable": _RULES["fingerprint"],
    "outbox_traceparent_is_w3c": _RULES["traceparent"],
    "outbox_payload_within_limit": "payload: at most 1 MiB of JSON",
    "outbox_fields_are_given": "tenant, aggregate, aggregate_id, kind and payload: each has to be given",
}


class FingerprintConflict(BadInput):
    """The fingerprint was used before, for another content. The transaction can only be rolled back."""


Payload = Mapping[str, Any] | list[Any] | tuple[Any, ...] | str
"""A JSON value as Python has it (see :func:`kilo.outbox.strict_json.check`), or JSON text."""


def new_fingerprint() -> str:
    """A fingerprint that no other event has: a UUIDv7 (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000 & (1 << 48) - 1
    version, variant = 7 << 76, 2 << 62
    noise = secrets.randbits(12) << 64 | secrets.randbits(62)
    return str(UUID(int=milliseconds << 80 | version | variant | noise))


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        tenant: whose event it is.
        aggregate: the kind of thing that it happened to; a token of the bus's subject.
        aggregate_id: which thing. Events of one tenant, aggregate and id are delivered in order.
        kind: what happened, such as ``order.paid``.
        payload: a JSON value as Python has it, or JSON text.
        fingerprint: the idempotency key, one of the tenant's. Without one the event gets its own, so that it
            is written once for each ``Event`` that is made: a retry that makes it anew writes it again. Give
            the key of the request or the message that you answer to where there is one, or
            :func:`content_fingerprint`.
        traceparent: of the trace that this belongs to (W3C Trace Context); by default that of the request
            or message that is handled (:mod:`kilo.context`).
        content_digest: what equal content means, when ``payload`` holds ciphertext, which differs every
            time; by default a SHA-256 over everything but the trace.
    """

    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: Payload
    fingerprint: str = field(default_factory=new_fingerprint)
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


def content_fingerprint(tenant: str, aggregate: str, aggregate_id: str, kind: str, payload: Payload) -> str:
    """``TENANT/sha256-HEX`` of an event's content, as ``Event(…, fingerprint=content_fingerprint(…))``.

    **Warning**: equal content is then one event for as long as fingerprints are kept (days). A switch that
    goes on, off and on again announces the second "on" to nobody. Use it only where the content names the
    one occurrence, such as by a payment's number.

    Raises:
        BadInput: the payload is not what the outbox takes.
    """
    digest = content_digest(tenant, aggregate, aggregate_id, kind, _checked(payload))
    return f"{tenant}/sha256-{digest.hex()}"


def enqueue(connection: psycopg.Connection[Any], event: Event, schema: str | None = None) -> Enqueued:
    """Write ``event`` in the transaction that ``connection`` is in.

    Args:
        connection: in a transaction.
        event: what to write.
        schema: where the outbox is (``database.schema_name`` of the stage's outputs); by default where the
            connection's own ``search_path`` finds it.

    Raises:
        FingerprintConflict: its fingerprint was used for another content.
        BadInput: a field is not what the outbox takes, and the message names it; or the connection commits
            each statement by itself.
        psycopg.Error: the database refuses or can't be reached.
    """
    _check_transaction(connection)
    values = values_of(event)
    try:
        with connection.cursor(row_factory=_tuple_row()) as cursor:
            row = cursor.execute(_insert(schema), values).fetchone()
    except Exception as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return Enqueued(event.fingerprint, row[0] if row else None)
    raise problem


async def enqueue_async(
    connection: psycopg.AsyncConnection[Any], event: Event, schema: str | None = None
) -> Enqueued:
    """As :func:`enqueue`, for asyncio."""
    _check_transaction(connection)
    values = values_of(event)
    try:
        async with connection.cursor(row_factory=_tuple_row()) as cursor:
            row = await (await cursor.execute(_insert(schema), values)).fetchone()
    except Exception as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return Enqueued(event.fingerprint, row[0] if row else None)
    raise problem


def enqueue_many(
    connection: psycopg.Connection[Any], events: Iterable[Event], schema: str | None = None
) -> list[Enqueued]:
    """Write many events, pipelined; returns what became of each, in the order given.

    Events of one ordering key (tenant, aggregate and id) keep their order. Each key that occurs takes one of
    the server's locks until the transaction ends, however many events it has. A transaction may take a
    quarter of them (``max_locks_per_transaction`` times ``max_connections``), beyond which it is refused.

    Raises:
        As :func:`enqueue`.
    """
    _check_transaction(connection)
    ordered, values = _in_lock_order(events)
    if not values:
        return []
    ids: list[int | None] = []
    try:
        with connection.cursor(row_factory=_tuple_row()) as cursor:
            cursor.executemany(_insert(schema), values, returning=True)
            while True:
                row = cursor.fetchone()
                ids.append(row[0] if row else None)
                if not cursor.nextset():
                    break
    except Exception as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return _in_given_order(ordered, ids)
    raise problem


async def enqueue_many_async(
    connection: psycopg.AsyncConnection[Any], events: Iterable[Event], schema: str | None = None
) -> list[Enqueued]:
    """As :func:`enqueue_many`, for asyncio."""
    _check_transaction(connection)
    ordered, values = _in_lock_order(events)
    if not values:
        return []
    ids: list[int | None] = []
    try:
        async with connection.cursor(row_factory=_tuple_row()) as cursor:
            await cursor.executemany(_insert(schema), values, returning=True)
            while True:
                row = await cursor.fetchone()
                ids.append(row[0] if row else None)
                if not cursor.nextset():
                    break
    except Exception as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return _in_given_order(ordered, ids)
    raise problem


def outbox_in(schema: str | None) -> str:
    """The outbox's name in SQL; without a schema it is looked up by the connection's ``search_path``."""
    if schema is None:
        return "outbox"
    # As libpq's PQescapeIdentifier does; importing the driver for it takes long.
    quoted = schema.replace('"', '""')
    return f'"{quoted}".outbox'


def _insert(schema: str | None) -> LiteralString:
    return cast("LiteralString", _INSERT.replace("outbox", outbox_in(schema), 1)) if schema else _INSERT


def lock_order(event: Event) -> tuple[str, str, str]:
    """By what every bulk writer sorts, so that two of them can't deadlock over the aggregates' locks."""
    return event.tenant, event.aggregate, event.aggregate_id


def _check_transaction(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    from psycopg.pq import TransactionStatus  # noqa: PLC0415  see above

    # In the middle of a pipeline the driver does not know; there, and only there, it is ACTIVE.
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        msg = (
            "the connection is in autocommit mode and in no transaction: the event would be kept when the"
            " change that it announces is not; write both in `with connection.transaction():`"
        )
        raise BadInput(msg)


def _in_lock_order(events: Iterable[Event]) -> tuple[list[tuple[int, str]], list[tuple[Any, ...]]]:
    numbered = list(enumerate(events))
    # Checked before they are sorted, which compares what may not be text.
    values = {number: values_of(event) for number, event in numbered}
    numbered.sort(key=lambda each: lock_order(each[1]))
    return (
        [(number, event.fingerprint) for number, event in numbered],
        [values[number] for number, _ in numbered],
    )


def _in_given_order(ordered: list[tuple[int, str]], ids: list[int | None]) -> list[Enqueued]:
    results = [Enqueued("", None)] * len(ordered)
    for (number, fingerprint), row_id in zip(ordered, ids, strict=True):
        results[number] = Enqueued(fingerprint, row_id)
    return results


def values_of(event: Event) -> tuple[Any, ...]:
    """The event's values for :data:`COLUMNS`.

    Raises:
        BadInput: a field is not what the outbox takes; the message names it.
    """
    for name, rule in _RULES.items():
        value = getattr(event, name)
        if value is None and name == "traceparent":
            continue
        if not isinstance(value, str):
            msg = f"{rule}; not {type(value).__name__}"
            raise BadInput(msg)
        # The rest of the rule is the database's; these would not get there, or not as what they are.
        if not (value.isascii() and value.isprintable()):
            raise BadInput(rule)
    payload = _checked(event.payload)
    text = event.payload if isinstance(event.payload, str) else strict_json.write(payload)
    check_promised(event.aggregate, event.kind, text)
    return (
        event.tenant,
        event.aggregate,
        event.aggregate_id,
        event.kind,
        text,
        event.fingerprint,
        event.traceparent or current_traceparent(),
        event.content_digest
        or content_digest(event.tenant, event.aggregate, event.aggregate_id, event.kind, payload),
    )


def _checked(payload: Payload) -> Any:
    """The payload's value, once it is known that every consumer can read it."""
    try:
        if isinstance(payload, str):
            return strict_json.parse(payload)
        value = dict(payload) if isinstance(payload, Mapping) else payload
        strict_json.check(value)
    except strict_json.NotStrict as error:
        msg = f"payload{error.pointer}: {error.problem}"
    else:
        return value
    raise BadInput(msg)


def _tuple_row() -> BaseRowFactory[tuple[Any, ...]]:
    from psycopg.rows import tuple_row  # noqa: PLC0415  see above

    return tuple_row


def _explained(error: Exception) -> Exception | None:
    from psycopg import IntegrityError  # noqa: PLC0415  see above

    if not isinstance(error, IntegrityError):
        return None
    # Raised outside of the handler: the database's error has a DETAIL with the whole row, payload included.
    return explained(error.diag.constraint_name or "", error.diag.message_primary or "")


def explained(constraint: str, message: str) -> Exception | None:
    """What the outbox's ``constraint`` means for whoever wrote the event; none when it is another's."""
    if constraint == _OUTBOX_CONTENT:
        return FingerprintConflict(f"{message}; give a new event a key of its own")
    if constraint == _OUTBOX_LOCKS:
        return BadInput(f"{message}: split it, or raise the server's max_locks_per_transaction")
    if constraint in _CONSTRAINTS:
        return BadInput(_CONSTRAINTS[constraint])
    return None
