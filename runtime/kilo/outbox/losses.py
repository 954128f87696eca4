"""Says how many events were found missing on the bus, for long enough that a scrape sees it.

A loss is mended by the very comparison that finds it, and the next one, seconds later, finds none.
"""

from __future__ import annotations

import time
from collections import deque

from prometheus_client import REGISTRY

from kilo.observe.metrics import OUTBOX_LOST

SAID_SECONDS = 300.0
"""How long a loss is said."""

_lost = OUTBOX_LOST.create(REGISTRY)
_found: deque[tuple[float, int]] = deque()


def say_lost(count: int) -> None:
    """Say what was found missing now and in the last minutes, by whichever comparison of this process."""
    now = time.monotonic()
    if count:
        _found.append((now, count))
    while _found and _found[0][0] < now - SAID_SECONDS:
        _found.popleft()
    _lost.set(sum(each for _, each in _found))
