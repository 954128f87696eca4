"""What happens to an event whose handler fails, and what when events are gone before they were read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import psycopg

from kilo.consumer.event import Unreadable


class Park(Exception):
    """Raised by a handler: this event can never be handled as it is; don't try again."""


class Behind(Enum):
    """What a consumer does when the stream no longer has messages that it has not read."""

    GO_ON = "go on"
    """Say so, and read what is still there."""
    STOP = "stop"
    """Be not ready and read nothing, until the gap was refilled."""


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
        holds_aggregate: whether later events of the ordering key are held behind a parked one.
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
