"""The sample consumer: what is known of each aggregate, and a hint of whom to contact about it.

It shows the whole of a handler: a decrypted value in hand, its effect in the transaction it was given,
and no sensitive value stored.
"""

from __future__ import annotations

from typing import Any

from kilo.consumer.consumer import Consumer
from kilo.consumer.event import Event
from kilo.consumer.statements import Statements

NAME = "projection"
_LONGEST_TOP = 12

_PROJECT = """
INSERT INTO projection (tenant, aggregate, aggregate_id, events, last_kind, last_fingerprint, contact_hint)
VALUES (%s, %s, %s, 1, %s, %s, %s)
ON CONFLICT (tenant, aggregate, aggregate_id) DO UPDATE SET events = projection.events + 1,
    last_kind = excluded.last_kind, last_fingerprint = excluded.last_fingerprint,
    contact_hint = coalesce(excluded.contact_hint, projection.contact_hint), updated_at = clock_timestamp()
"""


def make_consumer() -> Consumer:
    """The consumer with its one handler."""
    consumer = Consumer(NAME)

    @consumer.writes("*")
    def project(event: Event, statements: Statements) -> None:  # pyright: ignore[reportUnusedFunction]
        statements.add(
            _PROJECT,
            (
                event.tenant,
                event.aggregate,
                event.aggregate_id,
                event.kind,
                event.fingerprint,
                contact_hint(event.payload),
            ),
        )

    return consumer


def contact_hint(payload: Any) -> str | None:
    """That there is an e-mail address, and under which top-level domain: nothing that says whose it is.

    The rest of the domain would: whoever has one to their name is known by it.
    """
    email = payload.get("email") if isinstance(payload, dict) else None
    if not isinstance(email, str) or "@" not in email:
        return None
    top = email.rpartition(".")[2]
    return f"…@….{top}" if top.isascii() and top.isalpha() and len(top) <= _LONGEST_TOP else "…@…"
