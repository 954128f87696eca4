"""Time and chance under control, in a process of their own.

:func:`install` must run before the modules whose time and chance matter are imported. From then on
:func:`moment` fixes both for the duration of one call: the clock stands still at a given time, and every
random byte comes from a given seed. Outside of it, and in every other thread, both are the machine's.
Generators of :class:`random.Random` have no threads of their own, so calls that use the same ones take turns.

Modules that imported ``datetime`` or ``urandom`` before, and random numbers made in C libraries, stay
out of reach.
"""

from __future__ import annotations

import datetime  # noqa: ICN001  the module itself is changed
import hashlib
import os
import random
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_real_datetime = datetime.datetime
_real_time = time.time
_real_urandom = os.urandom


class _Moment(threading.local):
    """What is fixed in this thread. A byte that another thread took would shift all that follow."""

    time: float | None = None
    bytes: _Stream | None = None


class _Stream:
    """Bytes that follow from a seed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def read(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(size)


_fixed = _Moment()


def _now() -> float:
    return _real_time() if _fixed.time is None else _fixed.time


def _urandom(size: int) -> bytes:
    return _real_urandom(size) if _fixed.bytes is None else _fixed.bytes.read(size)


class _InstanceOfEither(type):
    # Values that C code made are of the real class and must still count.
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)


class _Datetime(_real_datetime, metaclass=_InstanceOfEither):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _real_datetime.fromtimestamp(_now(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _real_datetime.fromtimestamp(_now(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return _real_datetime.fromtimestamp(_now())


def install() -> None:
    """Put the controlled clock and chance in the place of the standard library's."""
    datetime.datetime = _Datetime  # type: ignore[misc]
    time.time = _now
    os.urandom = _urandom


@contextmanager
def moment(at: float, seed: bytes, *generators: random.Random) -> Generator[None]:
    """Fix the time to ``at`` (seconds since the epoch) and all chance to ``seed``.

    ``generators`` are seeded too, and so is the module-level one of :mod:`random`.
    """
    _fixed.time, _fixed.bytes = at, _Stream(seed)
    for generator in generators:
        generator.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        _fixed.time = _fixed.bytes = None
        for generator in generators:
            generator.seed(_real_urandom(32))
        random.seed(_real_urandom(32))
