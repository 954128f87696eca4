"""Remembers which events were being handled when the database's connection ended.

A handler's statement can end the session itself: a backend that runs out of memory, a limit of the server, a
handler that closes the connection it was given. Tried again and again, it would stop everybody; so an event
that was interrupted several times counts as failed. Kept in memory: a process that dies starts counting anew.
"""

from __future__ import annotations

from collections import OrderedDict

from kilo.consumer.event import Envelope, Occurrence

MOST_INTERRUPTIONS = 3
_REMEMBERED = 10_000


class Interruptions:
    """Counts interruptions by event, over the sessions of one process."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Occurrence, int] = OrderedDict()
        self.alone_until = 0
        """Up to which position events go one by one, so that it is known which of them is interrupted."""

    def count(self, one: Envelope) -> None:
        """``one`` alone was being handled when the connection ended."""
        self._counts[one.occurrence] = self._counts.pop(one.occurrence, 0) + 1
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def too_many(self, one: Envelope) -> bool:
        """Whether ``one`` was interrupted so often that it is taken for the cause; counts anew then."""
        if self._counts.get(one.occurrence, 0) < MOST_INTERRUPTIONS:
            return False
        del self._counts[one.occurrence]
        return True
