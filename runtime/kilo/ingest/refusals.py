"""Says in the log what the entrance refuses, without letting who is refused fill it.

The first refusal of a tenant with a status is logged at once, those that follow are counted and told together
after a while. A client's mistake is information, what the platform could not do is a warning. What a client
chose itself, names in a body among it, is not logged: only what was wrong with it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from http import HTTPStatus

from kilo.web.problem import Problem

_log = logging.getLogger(__name__)

_TOGETHER_SECONDS = 10.0
_LONGEST_REASON = 200


@dataclass(slots=True)
class _Told:
    at: float
    since: int = 0
    """Refusals that were counted and not told yet."""


class RefusalLog:
    """What was refused by tenant and status; there are as many as the stage's tenants and HTTP's statuses."""

    def __init__(self, together_seconds: float = _TOGETHER_SECONDS) -> None:
        self._together_seconds = together_seconds
        self._told: dict[tuple[str, HTTPStatus], _Told] = {}

    def note(self, tenant: str, problem: Problem) -> None:
        """Log a refusal, or count it."""
        now = time.monotonic()
        told = self._told.get((tenant, problem.status))
        if told is None:
            told = self._told[tenant, problem.status] = _Told(now)
        elif now - told.at < self._together_seconds:
            told.since += 1
            return
        reason = problem.errors[0]["detail"] if problem.errors else problem.detail
        level = logging.WARNING if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        _log.log(
            level,
            "refused a request of %s: %d %s%s",
            tenant,
            problem.status,
            # One line, whatever is in it.
            ascii(reason[:_LONGEST_REASON])[1:-1],
            f"; {told.since} more since the last such line" if told.since else "",
        )
        told.at, told.since = now, 0
