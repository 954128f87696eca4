"""Adds up what gateways wrote: lines in, sums by hour and mix out. Pure, and the hot loop of the collector.

Whole chunks are parsed at once, as one JSON array: that is faster than the parser called for each line. Where
a chunk is not what it should be, its lines are looked at one by one. A line that is torn (the gateway or its
disk ended within it) is counted and told; what follows it on the same line is an entry and is kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from kilo.usage.entries import FIELDS, LINE_BEGINS, METHODS, OTHER, SHED_REASONS, VERSIONS

Mix = tuple[str, str, str, str, str, str, str]
"""Hour (``2026-03-01T14``, UTC), tenant, route, method, class of status, version, limit that refused."""
_Raw = tuple[str, Any, Any, Any, Any, Any, Any]
"""Hour, method, route, shed, status, tenant, version: as they stand in lines."""

_values = itemgetter(*FIELDS)
_HOUR = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}")
_MOST = 2**60
"""Bytes in one sum: far beyond what an hour has, far below what the tables hold."""
_TENANT = re.compile(r"[a-z][a-z0-9-]{0,39}")
_ROUTE = re.compile(r"[a-z0-9][a-z0-9._/-]{0,99}")


@dataclass(slots=True)
class Totals:
    """Requests and bytes of bodies."""

    requests: int = 0
    received: int = 0
    sent: int = 0

    def add(self, requests: int, received: int, sent: int) -> None:
        """Add others to these."""
        self.requests += requests
        self.received += received
        self.sent += sent


@dataclass(slots=True)
class Sums:
    """What a stretch of a file comes to."""

    mixes: dict[Mix, Totals] = field(default_factory=dict[Mix, Totals])
    entries: int = 0
    unreadable: int = 0


def add_up(chunk: bytes) -> Sums:
    """Add up the lines of ``chunk``, which ends where a line does."""
    lines = chunk.count(b"\n")
    try:
        raw = _count(json.loads(b"[" + chunk[:-1].replace(b"\n", b",") + b"]"), lines)
    except (ValueError, TypeError, KeyError, RecursionError):
        return _one_by_one(chunk)
    return _named(raw, 0)


def _count(entries: list[Any], lines: int) -> dict[_Raw, list[int]]:
    """Sums by what stands in lines.

    Raises:
        ValueError, TypeError, KeyError: an entry is none.
    """
    if len(entries) != lines:
        raise ValueError(lines)
    found: dict[_Raw, list[int]] = {}
    for at, method, received, route, sent, shed, status, tenant, version in map(_values, entries):
        key = (at[:13], method, route, shed, status, tenant, version)
        if (totals := found.get(key)) is None:
            found[key] = [1, received, sent]
        else:
            totals[0] += 1
            totals[1] += received
            totals[2] += sent
    for _, received, sent in found.values():
        # A sum of integers is one; whatever else stood there has made it something else.
        if type(received) is not int or type(sent) is not int:
            raise TypeError(received)
        if not 0 <= received < _MOST or not 0 <= sent < _MOST:
            raise ValueError(received)
    return found


def _one_by_one(chunk: bytes) -> Sums:
    raw: dict[_Raw, list[int]] = {}
    unreadable = 0
    for line in chunk.split(b"\n")[:-1]:
        found = _entry(line)
        if found is None:
            unreadable += 1
            begins = line.rfind(LINE_BEGINS)
            found = _entry(line[begins:]) if begins > 0 else None
        for key, (requests, received, sent) in (found or {}).items():
            totals = raw.setdefault(key, [0, 0, 0])
            totals[0] += requests
            totals[1] += received
            totals[2] += sent
    return _named(raw, unreadable)


def _entry(line: bytes) -> dict[_Raw, list[int]] | None:
    try:
        return _count([json.loads(line)], 1)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _named(raw: dict[_Raw, list[int]], unreadable: int) -> Sums:
    """Give each sum its name; what has none of the few that are known goes under ``other``."""
    sums = Sums(unreadable=unreadable)
    for (hour, method, route, shed, status, tenant, version), (requests, received, sent) in raw.items():
        if not _is_hour(hour):
            sums.unreadable += requests
            continue
        mix = (
            hour,
            _known(tenant, _TENANT, ""),
            _known(route, _ROUTE, OTHER),
            method if method in METHODS else OTHER,
            f"{status // 100}xx" if type(status) is int and 100 <= status <= 599 else "none",
            version if version in VERSIONS else "",
            shed if shed in SHED_REASONS else "",
        )
        sums.mixes.setdefault(mix, Totals()).add(requests, received, sent)
        sums.entries += requests
    return sums


def _is_hour(text: str) -> bool:
    """Whether the database takes it, which would refuse the whole chunk for one line that it does not."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _HOUR.fullmatch(text) is not None


def _known(value: Any, pattern: re.Pattern[str], otherwise: str) -> str:
    if not value:
        return ""
    return value if isinstance(value, str) and pattern.fullmatch(value) else otherwise
