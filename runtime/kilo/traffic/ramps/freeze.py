"""Freeze windows: times in which no step forward is made. A revert is always."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kilo.errors import BadInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(r"^(?P<from>[a-z]{3})(-(?P<to>[a-z]{3}))? (?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)$")
_ONCE = re.compile(r"^(?P<start>\d{4}-\d\d-\d\dT\d\d:\d\dZ)/(?P<end>\d{4}-\d\d-\d\dT\d\d:\d\dZ)$")


@dataclass(frozen=True, slots=True)
class _Window:
    text: str
    days: frozenset[int] = frozenset()
    start: str = ""
    end: str = ""
    first: datetime | None = None
    last: datetime | None = None

    def holds(self, now: datetime) -> bool:
        if self.first and self.last:
            return self.first <= now < self.last
        clock = f"{now:%H:%M}"
        if self.start < self.end:
            return now.weekday() in self.days and self.start <= clock < self.end
        # Over midnight: the night belongs to the day that it begins on.
        yesterday = (now.weekday() - 1) % 7
        return (now.weekday() in self.days and clock >= self.start) or (
            yesterday in self.days and clock < self.end
        )


class Freezes:
    """Windows in UTC, weekly (``fri-sun 16:00-06:00``) or once (``2026-12-23T00:00Z/2027-01-02T00:00Z``).

    Raises:
        BadInput: a text is neither.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._windows = [_parse(text) for text in texts]

    def reason(self, now: float) -> str:
        """Which window ``now`` (seconds since the epoch) lies in; empty when none."""
        moment = datetime.fromtimestamp(now, UTC)
        found = next((window for window in self._windows if window.holds(moment)), None)
        return f"frozen ({found.text} UTC)" if found else ""


def _parse(text: str) -> _Window:
    try:
        if match := _ONCE.match(text):
            first, last = (datetime.fromisoformat(match[name]) for name in ("start", "end"))
            if first < last:
                return _Window(text, first=first, last=last)
        elif match := _WEEKLY.match(text):
            start, end = (
                datetime.strptime(match[name], "%H:%M").replace(tzinfo=UTC).strftime("%H:%M")
                for name in ("start", "end")
            )
            first = _DAYS.index(match["from"])
            last = _DAYS.index(match["to"] or match["from"])
            days = frozenset((first + offset) % 7 for offset in range((last - first) % 7 + 1))
            if start != end:
                return _Window(text, days, start, end)
    except ValueError:
        pass
    msg = f"'{text}' is no window; use 'fri-sun 16:00-06:00' or '2026-12-23T00:00Z/2027-01-02T00:00Z', in UTC"
    raise BadInput(msg)
