"""Tells changes of the output contract that break its readers from those that don't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_WORDS_ONLY = frozenset(
    {"description", "title", "default", "examples", "$schema", "properties", "required", "$defs"}
)


def breaking_changes(released: Schema, current: Schema) -> list[str]:
    """What a reader of the ``released`` schema can't rely on in the ``current`` one, a line each.

    Fields may be added if they have a default; texts may change. Everything else breaks: a field that
    is gone or renamed, another type, another set of values, a field that became required.
    """
    found = list(_changes("", released, current))
    for name, definition in released.get("$defs", {}).items():
        if name not in current.get("$defs", {}):
            found.append(f"{name} is gone")
        else:
            found += _changes(f"{name}.", definition, current["$defs"][name])
    return found


def _changes(place: str, released: Schema, current: Schema) -> Iterator[str]:
    for name, before in released.get("properties", {}).items():
        after = current.get("properties", {}).get(name)
        if after is None:
            yield f"{place}{name} is gone"
        elif _meaning(before) != _meaning(after):
            yield f"{place}{name} was {_meaning(before)}, is {_meaning(after)}"
    for name in sorted(set(current.get("required", ())) - set(released.get("required", ()))):
        yield f"{place}{name} became required"
    if _meaning(released) != _meaning(current):
        yield f"{place.removesuffix('.') or 'the document'} was {_meaning(released)}, is {_meaning(current)}"


def _meaning(schema: Any) -> Any:
    """The schema without words that only describe, deep."""
    if isinstance(schema, Mapping):
        return {key: _meaning(value) for key, value in schema.items() if key not in _WORDS_ONLY}
    if isinstance(schema, list):
        return [_meaning(value) for value in schema]
    return schema
