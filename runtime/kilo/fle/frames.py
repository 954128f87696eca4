"""Exceptions that leave the SDK without values in their frames.

Error trackers and debuggers show each frame's local variables, and the frames between a caller and the place
of an error hold what was to be encrypted, or was just decrypted. Lines and names stay; the caller's own
frames are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from traceback import clear_frames
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def clear(error: BaseException) -> None:
    """Forget the local variables of every frame that ``error`` and what it is chained to came through."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        clear_frames(each.__traceback__)
        waiting += [each.__cause__, each.__context__]


def clears_frames(function: Callable[P, T]) -> Callable[P, T]:
    """Have ``function`` raise without values in its frames."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            clear(error)
            # This frame goes on running, and is not cleared.
            del args, kwargs
            raise

    return call


def clears_frames_async(
    function: Callable[P, CoroutineType[Any, Any, T]],
) -> Callable[P, CoroutineType[Any, Any, T]]:
    """As :func:`clears_frames`, for a coroutine function."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except Exception as error:
            clear(error)
            del args, kwargs
            raise

    return call
