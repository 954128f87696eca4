"""Takes what was set aside when its time has come, in the order of each aggregate.

Of an aggregate only the first open entry can be taken: the others wait behind it. A parked one is open
until a person replays or discards it.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any

from psycopg import AsyncConnection

from kilo.consumer.event import Envelope
from kilo.consumer.failure import Failure, stack_digest
from kilo.consumer.policy import Policy

_LOOK_SECONDS = 0.2
_MOST = 100

# `replaying` is what a person asked for; `waiting` is due as soon as nothing stands before it.
_DUE = """
SELECT d.fingerprint, d.tenant, d.aggregate, d.aggregate_id, d.kind, d.created_at, d.position,
       d.headers, d.payload, d.attempts
FROM dead_letters d
WHERE d.consumer = %(consumer)s
  AND (d.state IN ('waiting', 'replaying') OR (d.state = 'retrying' AND d.next_at <= now()))
  AND NOT EXISTS (
      SELECT FROM dead_letters e
      WHERE e.consumer = d.consumer AND e.aggregate = d.aggregate AND e.aggregate_id = d.aggregate_id
        AND e.holds AND e.state IN ('retrying', 'parked', 'waiting', 'replaying') AND e.id < d.id)
ORDER BY d.id LIMIT %(most)s
"""


class Retries:
    """What ``consumer`` set aside, over its ``connection``."""

    def __init__(self, connection: AsyncConnection[Any], consumer: str) -> None:
        self._connection = connection
        self._consumer = consumer
        self._look_at = 0.0

    async def due(self) -> AsyncIterator[tuple[Envelope, int]]:
        """Events to try now, each with how often it was tried."""
        if time.monotonic() < self._look_at:
            return
        more = True
        while more:
            cursor = await self._connection.execute(
                _DUE, {"consumer": self._consumer, "most": _MOST}, prepare=True
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
                    tried,
                ) = row
                yield (
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
                    tried,
                )
            # What stood behind one of these is due now.
            more = bool(rows)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    async def done(self, one: Envelope) -> None:
        """``one`` had its effect."""
        await self._connection.execute(
            "UPDATE dead_letters SET state = 'replayed', last_at = now(), next_at = NULL,"
            " attempts = attempts + 1 WHERE consumer = %s AND fingerprint = %s",
            (self._consumer, one.fingerprint),
        )

    async def failed(self, failure: Failure, attempts: int, policy: Policy) -> bool:
        """``failure.one`` failed again; whether it is to be tried once more, or is parked."""
        error = failure.error
        again = attempts < policy.attempts and policy.retryable(error)
        pause = min(policy.first_pause_seconds * 2 ** (attempts - 1), policy.longest_pause_seconds)
        await self._connection.execute(
            "UPDATE dead_letters SET state = %s, error = %s, stack_digest = %s, attempts = %s,"
            " last_at = now(), next_at = now() + %s * interval '1 s', holds = %s"
            " WHERE consumer = %s AND fingerprint = %s",
            (
                "retrying" if again else "parked",
                f"{type(error).__name__}: {error}"[:2000],
                stack_digest(error),
                attempts,
                pause * random.uniform(0.5, 1.0) if again else None,  # noqa: S311  jitter
                again or policy.holds_aggregate,
                self._consumer,
                failure.one.fingerprint,
            ),
        )
        return again
