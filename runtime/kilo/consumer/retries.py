"""Takes dead letters that are due, in order within each ordering key.

Of an ordering key only the first open entry can be taken: the others are held behind it. A parked one is open
until a person replays or discards it.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from kilo.consumer.event import Envelope
from kilo.consumer.failure import Failure, stack_digest
from kilo.consumer.policy import Policy

_LOOK_SECONDS = 0.2
_MOST, _MOST_BYTES = 100, 4 * 1024 * 1024

# `replaying` is what a person asked for; `waiting` is due as soon as nothing stands before it.
_DUE = """
SELECT * FROM (
SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS bytes_before FROM (
SELECT d.fingerprint, d.tenant, d.aggregate, d.aggregate_id, d.kind, d.created_at, d.position,
       d.headers, d.payload, d.attempts, d.attempts_before_replay, d.id
FROM dead_letters d
WHERE d.consumer = %(consumer)s
  AND (d.state IN ('waiting', 'replaying') OR (d.state = 'retrying' AND d.next_at <= now()))
  AND NOT EXISTS (
      SELECT FROM dead_letters e
      WHERE e.consumer = d.consumer AND e.tenant = d.tenant AND e.aggregate = d.aggregate
        AND e.aggregate_id = d.aggregate_id
        AND e.holds AND e.state IN ('retrying', 'parked', 'waiting', 'replaying') AND e.id < d.id)
ORDER BY d.id LIMIT %(most)s) first) due
WHERE bytes_before < %(most_bytes)s ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that is due.

    Attributes:
        one: the event.
        attempts: how often it was tried, in all.
        attempts_before_replay: of those, how often before a person last asked for it.
    """

    one: Envelope
    attempts: int
    attempts_before_replay: int


class Retries:
    """The dead letters of ``consumer``, over its ``connection``."""

    def __init__(self, connection: AsyncConnection[Any], consumer: str) -> None:
        self._connection = connection
        self._consumer = consumer
        self._look_at = 0.0

    async def due(self) -> AsyncIterator[DeadLetter]:
        """Events to try now."""
        if time.monotonic() < self._look_at:
            return
        more = True
        while more:
            cursor = await self._connection.execute(
                _DUE, {"consumer": self._consumer, "most": _MOST, "most_bytes": _MOST_BYTES}, prepare=True
            )
            rows = await cursor.fetchall()
            for row in rows:
                (
                    fingerprint,
                    tenant,
                    aggregate,
                    aggregate_id,
                    kind,
                    created_at,
                    position,
                    headers,
                    raw,
                    attempts,
                    before_replay,
                    *_,
                ) = row
                yield DeadLetter(
                    Envelope(
                        fingerprint=fingerprint,
                        tenant=tenant,
                        aggregate=aggregate,
                        aggregate_id=aggregate_id,
                        kind=kind,
                        created_at=created_at,
                        publisher=headers.get("publisher", "worker"),
                        position=position,
                        headers=headers,
                        raw=bytes(raw),
                    ),
                    attempts,
                    before_replay,
                )
            # What was held behind one of these is due now.
            more = bool(rows)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    async def done(self, one: Envelope) -> None:
        """``one`` had its effect."""
        await self._connection.execute(
            "UPDATE dead_letters SET state = 'replayed', last_at = now(), next_at = NULL,"
            " attempts = attempts + 1"
            " WHERE consumer = %s AND tenant = %s AND fingerprint = %s AND created_at = %s",
            (self._consumer, *one.occurrence),
        )

    async def failed(self, letter: DeadLetter, failure: Failure, policy: Policy) -> bool:
        """``failure.one`` failed again; whether it is to be tried once more, or is parked."""
        error = failure.error
        attempts = letter.attempts + 1 - letter.attempts_before_replay
        again = attempts < policy.attempts and policy.retries(error)
        pause = policy.pause_seconds(attempts)
        await self._connection.execute(
            "UPDATE dead_letters SET state = %s, error = %s, stack_digest = %s, attempts = %s,"
            " last_at = now(), next_at = now() + %s * interval '1 s', holds = %s"
            " WHERE consumer = %s AND tenant = %s AND fingerprint = %s AND created_at = %s",
            (
                "retrying" if again else "parked",
                failure.description,
                stack_digest(error),
                letter.attempts + 1,
                pause * random.uniform(0.5, 1.0) if again else None,  # noqa: S311  jitter
                again or policy.holds_aggregate,
                self._consumer,
                *failure.one.occurrence,
            ),
        )
        return again
