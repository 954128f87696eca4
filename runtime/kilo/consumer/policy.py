"""What happens to an event whose handler fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from kilo.consumer.event import Unreadable


class Park(Exception):
    """Raised by a handler: this event can never be handled as it is; don't try again."""


def _retryable(error: BaseException) -> bool:
    return not isinstance(error, Park | Unreadable | psycopg.IntegrityError | psycopg.DataError)


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and when a kind of event is tried again, before it is parked as a dead letter.

    Attributes:
        attempts: how often in all; 1 parks at the first failure.
        first_pause_seconds: before the second attempt; it doubles each time, with jitter.
        longest_pause_seconds: where the doubling ends.
        timeout_seconds: after which an attempt counts as failed.
        holds_aggregate: whether later events of the aggregate wait behind a parked one.
        retryable: whether trying again can help after this error.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 60.0
    timeout_seconds: float = 30.0
    holds_aggregate: bool = True
    retryable: Callable[[BaseException], bool] = _retryable

    def pause_seconds(self, attempts: int) -> float:
        """How long to wait after this many attempts, before jitter."""
        doubled = self.first_pause_seconds * 2.0 ** min(attempts - 1, 60)
        return min(doubled, self.longest_pause_seconds)
