"""Reading JSON that somebody else wrote: bounded in depth, and with one meaning only.

A member that stands twice is read differently by different parsers, so what one tool checks another
would not run. Such documents are refused, as are numbers that JSON does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from kilo.registry.errors import Unreadable

DEPTH_LIMIT = 64
"""Levels of objects and arrays; manifests, SBOMs and bundles have fewer than twenty."""

LARGEST_SIZE = 2**63 - 1
"""Bytes; sizes are signed 64-bit integers (image-spec, "Descriptor")."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def parse_json(content: bytes, place: str) -> object:
    """Parse JSON; ``place`` names it in messages.

    Raises:
        Unreadable: it is no JSON, too deep, or ambiguous.
    """
    if _is_deep(content):
        msg = f"{place}: JSON of more than {DEPTH_LIMIT} levels"
        raise Unreadable(msg)
    try:
        return json.loads(content, object_pairs_hook=_unambiguous, parse_constant=_refuse_constant)
    except _AmbiguousError as error:
        msg = f"{place}: the member {printable(str(error))!r} stands there twice"
        raise Unreadable(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{place}: no JSON"
        raise Unreadable(msg) from error


def parse_object(content: bytes, place: str) -> dict[str, Any]:
    """Parse a JSON object. Raises as :func:`parse_json` does, and for any other value."""
    parsed = parse_json(content, place)
    if not isinstance(parsed, dict):
        msg = f"{place}: no JSON object"
        raise Unreadable(msg)
    return cast("dict[str, Any]", parsed)


def text_of(members: Mapping[str, object], name: str, place: str) -> str:
    """The string under ``name``, empty where there is none. Raises Unreadable for any other value."""
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        refuse(place, name, value, "a string")
    return value


def texts_of(members: Mapping[str, object], name: str, place: str) -> dict[str, str]:
    """The object of strings under ``name``, empty where there is none. Raises Unreadable as above."""
    value = members.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(place, name, value, "an object")
    entries = cast("dict[str, object]", value)
    return {key: text_of(entries, key, f"{place}: {name}") for key in entries}


def list_of(members: Mapping[str, object], name: str, place: str) -> Sequence[object]:
    """The array under ``name``, empty where there is none. Raises Unreadable as above."""
    value = members.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        refuse(place, name, value, "an array")
    return cast("list[object]", value)


def refuse(place: str, name: str, value: object, expected: str) -> NoReturn:
    """Raise Unreadable: the member ``name`` is ``value`` where ``expected`` is due."""
    msg = f"{place}: {printable(name)} is {printable(repr(value))}, and should be {expected}"
    raise Unreadable(msg)


def printable(text: str, limit: int = 120) -> str:
    """``text`` fit for a log or a terminal: nothing that steers it, and not too long."""
    shown = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


class _AmbiguousError(ValueError):
    """A member that stands twice in one object."""


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _AmbiguousError(name)
            seen.add(name)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_deep(content: bytes) -> bool:
    if content.count(b"[") + content.count(b"{") <= DEPTH_LIMIT:
        return False
    depth = 0
    for match in _TOKEN.finditer(content):
        token = match[0]
        if token in {b"[", b"{"}:
            depth += 1
            if depth > DEPTH_LIMIT:
                return True
        elif token in {b"]", b"}"}:
            depth -= 1
    return False
