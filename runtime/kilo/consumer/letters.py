"""What becomes of an event that has no effect now: a dead letter, tried again, parked, or held behind one."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection

from kilo.consumer import inbox
from kilo.consumer.event import Envelope, Unreadable
from kilo.consumer.failure import ConnectionLost, Failure, describe, stack_digest
from kilo.consumer.metrics import ConsumerMetrics

if TYPE_CHECKING:
    from kilo.consumer.runner import Runner

_log = logging.getLogger(__name__)

_LOSSES = 3
"""How often at least the connection must end during one event before that counts as the handler's doing."""


class Letters:
    """Keeps dead letters of ``runner``'s consumer, in the transaction that ``connection`` is in."""

    def __init__(self, runner: Runner, connection: AsyncConnection[Any]) -> None:
        self._runner = runner
        self._consumer = runner.consumer
        self._stream = runner.connections.stream
        self._connection = connection
        self._metrics = ConsumerMetrics.shared()

    def lost(self, one: Envelope) -> Failure | None:
        """The failure of ``one`` when the connection ended too often while it was handled."""
        _, policy = self._consumer.handler_for(one.kind)
        many = self._runner.losses(one) >= max(policy.attempts, _LOSSES)
        return Failure(one, ConnectionLost()) if many else None

    async def fail(self, failure: Failure) -> None:
        """Keep the event that failed, by its policy."""
        one, error = failure.one, failure.error
        _, policy = self._consumer.handler_for(one.kind)
        lost = isinstance(error, ConnectionLost)
        again = not lost and policy.attempts > 1 and policy.retryable(error)
        await inbox.keep(
            self._connection,
            self._consumer.name,
            one,
            state="retrying" if again else "parked",
            error=describe(error),
            stack_digest=stack_digest(error),
            attempts=self._runner.losses(one) if lost else 1,
            pause_seconds=policy.pause_seconds(1) * random.uniform(0.5, 1.0) if again else None,  # noqa: S311
            # While it is tried again, later ones are always held: that is what keeps their order.
            holds=again or policy.holds_aggregate,
        )
        self.report(failure, again=again)

    def report(self, failure: Failure, *, again: bool) -> None:
        """Log and count a failure."""
        one = failure.one
        _log.warning(
            "%s of %s failed (%s), %s; trace %s",
            one.kind,
            one.fingerprint,
            describe(failure.error),
            "trying again" if again else "parked",
            one.headers.get("traceparent", "none"),
        )
        self._metrics.count(one.kind, "retried" if again else "parked")
        self._metrics.failed()
        if not again:
            self._metrics.parked(one)

    async def hold_behind(self, one: Envelope) -> None:
        """Keep an event whose ordering key has an open dead letter."""
        await inbox.keep(self._connection, self._consumer.name, one, state="waiting")
        self._metrics.count(one.kind, "parked")

    async def park_unreadable(self, one: Envelope, error: Unreadable) -> None:
        """Keep a message that is no event."""
        await inbox.keep(
            self._connection,
            self._consumer.name,
            one,
            state="parked",
            error=describe(error),
            stack_digest=stack_digest(error),
            attempts=1,
        )
        _log.warning("message %d of stream %s is parked: %s", one.position, self._stream, error)
        self._metrics.count(one.kind, "parked")
        self._metrics.parked(one)
