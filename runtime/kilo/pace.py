"""How often what works in batches begins one: alone an event goes at once, under load batches grow.

A batch costs the same round trips whether it holds one event or a thousand. After a small one there is a rest
in proportion to what it took, so that on a busy machine, where it takes longer, more events share the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager

_REST = 2.0
"""Of the time that the batch took."""
_LONGEST_SECONDS = 0.02


class Pace:
    """The rests between a process's batches."""

    def __init__(self) -> None:
        self._until = 0.0

    @contextmanager
    def batch(self, *, full: bool) -> Generator[None]:
        """Measure a batch; after one that was ``full`` there is no rest, since more may wait."""
        started = time.monotonic()
        yield
        now = time.monotonic()
        self._until = now if full else now + min(_REST * (now - started), _LONGEST_SECONDS)

    async def rest(self) -> None:
        """Wait until the next batch may begin."""
        left = self._until - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
