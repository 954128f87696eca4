"""Finds the messages that the stream gave up before the consumer had read them.

Compared is the position with the stream's first message: when a session begins, and whenever a batch does
not follow on the one before. What lies between is a gap, kept in ``consumer_gaps`` for ``kilo consumer
refill``. A consumer that is new begins with what the stream holds, and a stream with another history is read
whole: neither has a gap that could be told in positions. Messages deleted one by one from the middle are no
gap either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from psycopg import AsyncConnection

from kilo.bus import Bus, Received, same_history
from kilo.consumer import inbox
from kilo.consumer.consumer import Consumer
from kilo.consumer.metrics import ConsumerMetrics
from kilo.consumer.policy import Behind

_log = logging.getLogger(__name__)

# A gap grows while its consumer does not move on; what was refilled of it then is refilled no more.
_RECORD = """
WITH known AS (
    SELECT to_position FROM consumer_gaps WHERE consumer = %(consumer)s AND source = %(source)s
        AND from_position = %(first)s
)
INSERT INTO consumer_gaps AS gap (consumer, source, from_position, to_position)
VALUES (%(consumer)s, %(source)s, %(first)s, %(last)s)
ON CONFLICT (consumer, source, from_position) DO UPDATE SET
    to_position = greatest(gap.to_position, excluded.to_position),
    refilled_at = CASE WHEN excluded.to_position <= gap.to_position THEN gap.refilled_at END
RETURNING to_position - coalesce((SELECT to_position FROM known), from_position - 1), refilled_at IS NOT NULL
"""


class BehindRetention(Exception):
    """The consumer stops before a gap that was not refilled, as its policy says."""


class RetentionCheck:
    """Compares what ``consumer`` has read with what ``stream`` still holds.

    Args:
        consumer: whose position it is, and whose policy.
        stream: what it reads.
        connection: for the consumer's tables.
        bus: of which nothing is read yet.
        fenced: a transaction on ``connection`` that commits only while the consumer's lease is held.
    """

    def __init__(
        self,
        consumer: Consumer,
        stream: str,
        connection: AsyncConnection[Any],
        bus: Bus,
        fenced: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._consumer = consumer
        self._stream = stream
        self._connection = connection
        self._bus = bus
        self._fenced = fenced
        self._read = 0

    async def begin(self) -> int:
        """Return the position after which to read.

        Raises:
            BehindRetention: messages after it are gone, and the consumer's policy is to stop.
        """
        name = self._consumer.name
        known = await inbox.position(self._connection, name, self._stream)
        first = await self._bus.first_position(self._stream)
        if known is None:
            self._read = max(0, first - 1)
            # From now on it is behind when the stream gives up what it has not read.
            async with self._fenced():
                await inbox.begin(self._connection, name, self._stream, self._read)
            return self._read
        position, stored_at = known
        if not await same_history(self._bus, self._stream, position, stored_at):
            # The stream was made anew or restored from before: the inbox knows what had its effect.
            _log.warning(
                "stream %s is not the one of which %d was read: reading it whole", self._stream, position
            )
            self._read = max(0, first - 1)
            return 0
        self._read = position
        await self._check(first)
        return position

    async def follow(self, batch: Sequence[Received]) -> None:
        """Take note of ``batch``, which is not empty and was not handled yet.

        Raises:
            BehindRetention: messages before it are gone, and the consumer's policy is to stop.
        """
        if batch[0].position > self._read + 1:
            first = await self._bus.first_position(self._stream)
            await self._check(min(first, batch[0].position))
        self._read = batch[-1].position

    async def _check(self, first: int) -> None:
        gap = (self._read + 1, first - 1)
        if gap[1] < gap[0]:
            return
        name, values = self._consumer.name, {"first": gap[0], "last": gap[1]}
        async with self._fenced():
            cursor = await self._connection.execute(
                _RECORD, {"consumer": name, "source": self._stream, **values}
            )
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101  RETURNING of an upsert has one row
        lost, refilled = row
        reason = (
            f"stream {self._stream} no longer has {gap[1] - gap[0] + 1} messages that consumer {name} has not"
            f" read, positions {gap[0]} to {gap[1]}: run `kilo consumer refill --consumer {name}`"
        )
        if lost:
            ConsumerMetrics.shared().lost(name, lost)
            _log.error("%s", reason)
        if self._consumer.behind is Behind.STOP and not refilled:
            raise BehindRetention(reason)
        self._read = gap[1]
