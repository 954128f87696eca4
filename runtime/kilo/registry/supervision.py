"""Loops of a long-lived process that no failure ends: each is logged, counted and tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kilo.errors import KiloError

log = logging.getLogger(__name__)


def attempt(loop: str, action: Callable[[], None], on_failure: Callable[[str], None]) -> bool:
    """Run ``action`` once and say whether it succeeded; if not, call ``on_failure`` with ``loop``."""
    try:
        action()
    except KiloError as error:
        log.warning("%s: %s", loop, error)
    except Exception:
        log.exception("%s failed, and is tried again", loop)
    else:
        return True
    on_failure(loop)
    return False


def repeat(
    loop: str,
    action: Callable[[], None],
    every_seconds: float,
    stopping: threading.Event,
    on_failure: Callable[[str], None],
) -> None:
    """Run ``action`` now and then each ``every_seconds`` after it ended, until ``stopping`` is set."""
    while not stopping.is_set():
        attempt(loop, action, on_failure)
        stopping.wait(every_seconds)
