"""Takes dead letters whose time has come, in the order of each ordering key.

Of an ordering key only the first open letter can be taken: the others are held behind it. A parked one is
open until a person replays or discards it.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from kilo.bus import Received
from kilo.consumer.event import Envelope
from kilo.consumer.failure import ConnectionLost, Failure, describe, stack_digest
from kilo.consumer.policy import Policy

_LOOK_SECONDS = 0.2
_LONGEST_SECONDS = 1.0
"""After which what comes from the bus has its turn, whatever is due still."""
_MOST = 100

# `replaying` is what a person asked for; `waiting` is due as soon as nothing stands before it. Payloads are
# bounded by their stored size, which is known without reading them; the first is always taken.
_DUE = """
SELECT id, tenant, aggregate, aggregate_id, kind, fingerprint, created_at, position, headers, payload,
       attempts, attempts_before
FROM (
    SELECT d.*, sum(octet_length(d.payload)) OVER (ORDER BY d.id) - octet_length(d.payload) AS before
    FROM (
        SELECT d.* FROM dead_letters d
        WHERE d.consumer = %(consumer)s
          AND (d.state IN ('waiting', 'replaying') OR (d.state = 'retrying' AND d.next_at <= now()))
          AND NOT EXISTS (
              SELECT FROM dead_letters e
              WHERE e.consumer = d.consumer AND e.tenant = d.tenant AND e.aggregate = d.aggregate
                AND e.aggregate_id = d.aggregate_id
                AND e.holds AND e.state IN ('retrying', 'parked', 'waiting', 'replaying') AND e.id < d.id)
        ORDER BY d.id LIMIT %(most)s
    ) d
) due WHERE before < %(most_bytes)s ORDER BY id
"""


class Letter(NamedTuple):
    """A dead letter that is due."""

    id: int
    one: Envelope
    attempts: int
    """All that there were."""
    attempts_before: int
    """Those before the last replay, which the policy does not count."""

    @property
    def received(self) -> Received:
        """The message that it was, to be parsed again."""
        one = self.one
        return Received(
            one.position, f"letter.{one.aggregate}", one.headers, one.raw, one.created_at.timestamp()
        )


class Retries:
    """The dead letters of ``consumer``, over its ``connection``; at most ``most_bytes`` at once."""

    def __init__(self, connection: AsyncConnection[Any], consumer: str, most_bytes: int) -> None:
        self._connection = connection
        self._consumer = consumer
        self._most_bytes = most_bytes
        self._look_at = 0.0

    async def due(self) -> AsyncIterator[Letter]:
        """Letters to try now."""
        started = time.monotonic()
        if started < self._look_at:
            return
        more = True
        while more:
            more = False
            for letter in await self._read():
                # What stood behind it is due then.
                more = True
                yield letter
                if time.monotonic() - started > _LONGEST_SECONDS:
                    return
        self._look_at = time.monotonic() + _LOOK_SECONDS

    async def _read(self) -> list[Letter]:
        values = {"consumer": self._consumer, "most": _MOST, "most_bytes": self._most_bytes}
        cursor = self._connection.cursor(row_factory=tuple_row)
        await cursor.execute(_DUE, values, prepare=True)
        return [_letter(row) for row in await cursor.fetchall()]

    async def done(self, letter: Letter) -> None:
        """``letter`` had its effect."""
        await self._connection.execute(
            "UPDATE dead_letters SET state = 'replayed', last_at = now(), next_at = NULL,"
            " attempts = attempts + 1 WHERE id = %s",
            (letter.id,),
        )

    async def failed(self, letter: Letter, failure: Failure, policy: Policy) -> bool:
        """``letter`` failed again; whether it is to be tried once more, or is parked."""
        error, tried = failure.error, letter.attempts - letter.attempts_before + 1
        lost = isinstance(error, ConnectionLost)
        again = not lost and tried < policy.attempts and policy.retryable(error)
        pause = policy.pause_seconds(tried)
        await self._connection.execute(
            "UPDATE dead_letters SET state = %s, error = %s, stack_digest = %s, attempts = attempts + 1,"
            " last_at = now(), next_at = now() + %s * interval '1 s', holds = %s WHERE id = %s",
            (
                "retrying" if again else "parked",
                describe(error),
                stack_digest(error),
                pause * random.uniform(0.5, 1.0) if again else None,  # noqa: S311  jitter
                again or policy.holds_aggregate,
                letter.id,
            ),
        )
        return again


def _letter(row: tuple[Any, ...]) -> Letter:
    letter_id, tenant, aggregate, aggregate_id, kind, fingerprint, created_at, position, *rest = row
    headers, raw, attempts, attempts_before = rest
    one = Envelope(
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
    )
    return Letter(letter_id, one, attempts, attempts_before)
