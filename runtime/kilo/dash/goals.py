"""The page of goals: what `kilo goals` says, asked at most once a minute since the engine is asked too."""

from __future__ import annotations

import threading
import time
from typing import Any

from kilo.contract import StackOutputs
from kilo.goals.cli import looking_at, measuring
from kilo.goals.goals import read_goals

_KEEP_SECONDS = 60.0
_WINDOW_SECONDS = 86_400


class Standings:
    """Reads one stage's goals."""

    def __init__(self, outputs: StackOutputs) -> None:
        self._outputs, self._lock = outputs, threading.Lock()
        self._found: dict[str, Any] = {}
        self._until = 0.0

    def read(self) -> dict[str, Any]:
        """Every goal with its figure and what it was; one that is not known says why."""
        with self._lock:
            if time.monotonic() >= self._until:
                with measuring(self._outputs) as measure:
                    found = read_goals(measure, looking_at(self._outputs, _WINDOW_SECONDS))
                self._found = {"goals": [each.document(time.time()) for each in found]}
                self._until = time.monotonic() + _KEEP_SECONDS
            return self._found
