"""What changed between two versions of schemas, and whether anybody breaks by it.

Events lie in streams for days and consumers are deployed at other times than producers, so both directions
count: a consumer of the old schema reads new events, and one of the new schema reads old events. What may
change is what can be shown to be harmless in both:

- words for people (``title``, ``description``, ``examples``, ``deprecated``, ``default``, ``x-…``);
- a property that nobody must give: added, or taken away;
- a new kind; a kind that the recorded version calls ``deprecated``, taken away.

Everything else is refused, looser limits too: a new value of an ``enum`` is one that old consumers don't
know. It takes a new kind, such as ``order.paid.v2``, beside the old one until nobody reads that. One thing is
taken on trust: that no event carried a property before its schema named it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kilo.schemas.folder import EventSchema, escaped

_WORDS = frozenset({"$comment", "$schema", "default", "deprecated", "description", "examples", "title"})


@dataclass(frozen=True, slots=True)
class Change:
    """One change; a breaking one says what would be right."""

    kind: str
    pointer: str
    what: str
    breaking: bool


def changes(old: Mapping[str, EventSchema], new: Mapping[str, EventSchema]) -> list[Change]:
    """All that differs from ``old`` to ``new``, but for words."""
    found: list[Change] = []
    for kind in sorted(old.keys() | new.keys()):
        if kind not in old:
            found.append(Change(kind, "", "is new", breaking=False))
        elif kind not in new:
            gone = bool(old[kind].document.get("deprecated"))
            what = "is gone" if gone else 'is gone; record it with "deprecated": true first'
            found.append(Change(kind, "", what, breaking=not gone))
        else:
            found += _of_kind(old[kind], new[kind])
    return found


def _of_kind(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    if old.aggregate != new.aggregate:
        # Order is kept within an aggregate, and the subject is made of it.
        yield Change(old.kind, "/x-aggregate", _differs(old.aggregate, new.aggregate), breaking=True)
    comparison = _Comparison(old.document, new.document)
    for pointer, what, breaking in comparison.of("", old.document, new.document):
        yield Change(old.kind, pointer, what, breaking)


_Difference = tuple[str, str, bool]
"""Where, what, and whether it breaks."""


class _Comparison:
    """Compares two documents; parts that are named are compared once, wherever they are used."""

    def __init__(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        self._old, self._new = old, new
        self._compared: set[tuple[str | None, str | None]] = set()

    def of(self, pointer: str, old: Any, new: Any) -> Iterator[_Difference]:
        """What differs from one schema to another, both found at ``pointer``."""
        was, was_name = _resolved(self._old, old)
        now, now_name = _resolved(self._new, new)
        if was_name or now_name:
            if (was_name, now_name) in self._compared:
                return
            self._compared.add((was_name, now_name))
        if not (isinstance(was, dict) and isinstance(now, dict)):
            if not _same(was, now):
                yield pointer, _differs(was, now), True
            return
        before, after = _rules(was), _rules(now)
        yield from self._properties(f"{pointer}/properties", before, after)
        yield from _required(f"{pointer}/required", before.pop("required", ()), after.pop("required", ()))
        for name in sorted(before.keys() | after.keys()):
            here = f"{pointer}/{escaped(name)}"
            if name not in before:
                yield here, f"is new: {_short(after[name])}", True
            elif name not in after:
                yield here, f"is gone: {_short(before[name])}", True
            else:
                yield from self._keyword(here, name, before[name], after[name])

    def _properties(
        self, pointer: str, before: dict[str, Any], after: dict[str, Any]
    ) -> Iterator[_Difference]:
        was, now = before.pop("properties", {}), after.pop("properties", {})
        for name in sorted(was.keys() | now.keys()):
            here = f"{pointer}/{escaped(name)}"
            if name not in was:
                # A schema for all other properties was a promise about this one too.
                yield here, "is new", not _open(before)
            elif name not in now:
                yield here, "is gone", not _open(after)
            else:
                yield from self.of(here, was[name], now[name])

    def _keyword(self, pointer: str, name: str, was: Any, now: Any) -> Iterator[_Difference]:
        if name in _SCHEMAS:
            yield from self.of(pointer, was, now)
        elif name in _LISTS and len(was) == len(now):
            for number, (one, other) in enumerate(zip(was, now, strict=True)):
                yield from self.of(f"{pointer}/{number}", one, other)
        elif name == "enum":
            yield from _enum(pointer, was, now)
        elif not _same(was, now):
            yield pointer, _differs(was, now), True


_SCHEMAS = frozenset({"additionalProperties", "contains", "items", "not", "propertyNames"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})


def _resolved(document: Mapping[str, Any], node: Any) -> tuple[Any, str | None]:
    """``node`` with its reference followed, and the reference; one with rules beside it stays as it is."""
    name: str | None = None
    followed: set[str] = set()
    while isinstance(node, dict) and _rules(node).keys() == {"$ref"} and node["$ref"] not in followed:
        name = str(node["$ref"])
        followed.add(name)
        key = name.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
        node = document["$defs"][key]
    return node, name


def _rules(node: Mapping[str, Any]) -> dict[str, Any]:
    """What of a schema decides about data."""
    return {
        name: value
        for name, value in node.items()
        if name not in _WORDS and name != "$defs" and not name.startswith("x-")
    }


def _open(rules: Mapping[str, Any]) -> bool:
    """Whether a property that is not named may be anything."""
    others = ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties")
    return all(rules.get(name, True) is True for name in others)


def _required(pointer: str, was: Iterable[str], now: Iterable[str]) -> Iterator[_Difference]:
    for name in sorted(set(now) - set(was)):
        yield pointer, f"asks for {name}, which events in the stream lack: leave it optional", True
    for name in sorted(set(was) - set(now)):
        yield pointer, f"no longer asks for {name}, which consumers rely on", True


def _enum(pointer: str, was: list[Any], now: list[Any]) -> Iterator[_Difference]:
    for value in now:
        if not any(_same(value, each) for each in was):
            yield pointer, f"{_short(value)} is new, which consumers don't know", True
    for value in was:
        if not any(_same(value, each) for each in now):
            yield pointer, f"{_short(value)} is gone, which events in the stream have", True


def _same(was: object, now: object) -> bool:
    """Whether two JSON values are equal; to Python true is 1."""
    return json.dumps(was, sort_keys=True, default=str) == json.dumps(now, sort_keys=True, default=str)


def _differs(was: object, now: object) -> str:
    return f"was {_short(was)}, is {_short(now)}"


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
