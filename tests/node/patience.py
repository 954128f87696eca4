"""How long a node's tests wait: a pod alone may take a minute where images are read from a busy disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests import patience

T = TypeVar("T")

_SECONDS = 900


def until(condition: Callable[[], T | None], what: str) -> T:
    """As :func:`tests.patience.until`."""
    return patience.until(condition, what, max(_SECONDS, patience.PATIENCE_SECONDS))
