"""Tells whether a stream still has the history that a reader remembers a position of.

A stream that was deleted and declared again, or restored from before, numbers other messages with the
positions that a reader has passed. Whoever goes on from its position there would pass over them for good.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, cast

from kilo.bus.port import Bus


async def same_history(bus: Bus, stream: str, position: int, stored_at: float | None) -> bool:
    """Whether the message at ``position`` of ``stream`` is the one that was read there.

    Args:
        bus: a connection of which nothing else is read meanwhile.
        stream: the stream.
        position: the last one that was read, 0 for none.
        stored_at: when the bus had stored that message; none when that was not remembered.

    Returns:
        False when it is another message, or the stream ends before it. What retention or a deletion took
        can't be compared and counts as the same.

    Raises:
        BusError: the bus does not answer.
    """
    if position == 0:
        return True
    if position > await bus.last_position(stream):
        return False
    if stored_at is None or position < await bus.first_position(stream):
        return True
    async with aclosing(cast("Any", bus.read(stream, position - 1, 1))) as reading:
        async for batch in reading:
            if batch:
                found = batch[0]
                return found.position != position or found.stored_at == stored_at
    return True
