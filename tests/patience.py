"""Waits for what must come about, with a deadline that no busy machine reaches, and never a number of tries.

``make test STRESS=1`` runs the tests beside a load generator, which makes everything many times slower.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = float(os.environ.get("KILO_TEST_PATIENCE_SECONDS", "90"))
_PAUSE_SECONDS = 0.02


def until(
    condition: Callable[[], T | None],
    what: str = "it did not come about",
    seconds: float = PATIENCE_SECONDS,
) -> T:
    """What ``condition`` gives once it is true; an assertion error in it counts as not yet.

    Args:
        what: said when it does not come about.
        seconds: the deadline, for what takes long on any machine.
    """
    deadline = time.monotonic() + seconds
    while True:
        if (found := _met(condition, deadline, what)) is not None:
            return found
        time.sleep(_PAUSE_SECONDS)


async def eventually(condition: Callable[[], T | None], what: str = "it did not come about") -> T:
    """As :func:`until`, for tests that leave the loop to others while they wait."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        if (found := _met(condition, deadline, what)) is not None:
            return found
        await asyncio.sleep(_PAUSE_SECONDS)


def _met(condition: Callable[[], T | None], deadline: float, what: str) -> T | None:
    late = time.monotonic() > deadline
    try:
        found = condition()
    except AssertionError:
        if late:
            raise
        return None
    assert found or not late, what
    return found or None
