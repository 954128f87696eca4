"""A bus that is busy: it answers, and says what it holds late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from kilo.bus import Bus, Received


class LateBus:
    """A connection to ``bus`` whose first reads, so many, bring nothing."""

    def __init__(self, bus: Bus, silent_reads: int = 2) -> None:
        self._bus, self._silent_reads = bus, silent_reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def read(self, stream: str, position: int, most: int = 1000) -> AsyncIterator[Sequence[Received]]:
        for _ in range(self._silent_reads):
            yield []
        async for batch in self._bus.read(stream, position, most):
            yield batch
