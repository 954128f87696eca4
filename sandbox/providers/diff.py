"""What changed between a resource's old and new inputs, as the engine's detailed diff wants it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sandbox.providers.values import Properties, Value


@dataclass(frozen=True)
class Change:
    """One changed property: its path, what happened to it, and whether that takes a new resource."""

    path: str
    kind: Literal["add", "delete", "update"]
    replaces: bool


def changes(
    old: Properties, new: Properties, *, immutable: Collection[str] = (), documents: Collection[str] = ()
) -> list[Change]:
    """Every change from ``old`` to ``new`` inputs.

    Args:
        old: inputs as recorded in the state, or as last read from the world.
        new: inputs that the program gives, checked.
        immutable: top-level properties that can't change in place.
        documents: top-level properties that hold JSON text, compared by what they mean.
    """
    found: list[Change] = []
    for name in sorted({*old, *new}):
        if name.startswith("__"):
            continue
        before, after = old.get(name), new.get(name)
        if name in documents and same_document(before, after):
            continue
        found += [Change(path, kind, name in immutable) for path, kind in _walk(before, after, name)]
    return found


def _walk(old: Value, new: Value, path: str) -> Iterator[tuple[str, Literal["add", "delete", "update"]]]:
    if (old == new and type(old) is type(new)) or (_is_nothing(old) and _is_nothing(new)):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _walk(old.get(name), new.get(name), _key(path, name))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            yield from _walk(before, after, f"{path}[{index}]")
    elif old is None:
        yield path, "add"
    elif new is None:
        yield path, "delete"
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, "update"


def _is_nothing(value: Value) -> bool:
    return value is None or value in ({}, [])


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if name.replace("-", "_").isidentifier() else f"{path}[{json.dumps(name)}]"


def same_document(one: Value, other: Value) -> bool:
    """Whether two JSON documents say the same; the order of a policy's actions says nothing."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return _canonical(json.loads(one)) == _canonical(json.loads(other))
    except ValueError:
        return False


def _canonical(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            # In a policy one string and a list of that one string are the same.
            return value[0] if len(value) == 1 else sorted(value)
        return [_canonical(item) for item in value]
    return value
