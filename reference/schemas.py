"""Walks a JSON Schema that pydantic made, one row a path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reference.tables import code

_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What stands at a path.

    Attributes:
        path: with ``[]`` for an item of a list and ``.NAME`` for a key that is free.
        type: what it is.
        default: as JSON, or that it must be given.
        limits: what is refused beyond.
        words: what it is for.
    """

    path: str
    type: str
    default: str
    limits: str
    words: str


def rows(schema: Mapping[str, Any], node: Mapping[str, Any], path: str, *, required: bool) -> Iterator[Row]:
    """A row for ``node`` and one for everything inside it."""
    whole = _resolved(schema, node)
    yield Row(
        path,
        type_of(schema, node),
        _default(node, required=required),
        limits_of(whole),
        words_of(node, whole),
    )
    yield from _inside(schema, whole, path)


def _inside(schema: Mapping[str, Any], whole: Mapping[str, Any], path: str) -> Iterator[Row]:
    for name, part in whole.get("properties", {}).items():
        separator = "." if path else ""
        yield from rows(schema, part, f"{path}{separator}{name}", required=name in whole.get("required", ()))
    items = whole.get("items")
    if isinstance(items, Mapping) and _resolved(schema, items).get("properties"):
        yield from _inside(schema, _resolved(schema, items), f"{path}[]")
    others = whole.get("additionalProperties")
    if isinstance(others, Mapping) and _resolved(schema, others).get("properties"):
        yield from _inside(schema, _resolved(schema, others), f"{path}.NAME")


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """``node`` with its reference followed, and of a choice with null the other."""
    if "$ref" in node:
        return {
            **schema["$defs"][node["$ref"].rpartition("/")[2]],
            **{k: v for k, v in node.items() if k != "$ref"},
        }
    choices = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(schema, choices[0]), **{k: v for k, v in node.items() if k != "anyOf"}}
    return node


def type_of(schema: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """What a value is, in a few words."""
    whole = _resolved(schema, node)
    if "enum" in whole:
        return " or ".join(code(each) for each in whole["enum"])
    if "const" in whole:
        return code(whole["const"])
    if "anyOf" in whole:
        return " or ".join(type_of(schema, each) for each in whole["anyOf"])
    kind = whole.get("type")
    if kind == "array":
        return f"list of {type_of(schema, whole.get('items', {}))}"
    if kind == "object":
        others = whole.get("additionalProperties")
        return f"mapping to {type_of(schema, others)}" if isinstance(others, Mapping) else "mapping"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        str(kind), "anything"
    )


def _default(node: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "must be given"
    default = node.get("default")
    if isinstance(default, Mapping) and len(default) > 1:
        return "as below"
    return "none" if default is None else code(default)


def limits_of(whole: Mapping[str, Any]) -> str:
    """The limits of a value."""
    found = [words.format(whole[name]) for name, words in _LIMITS.items() if name in whole]
    pattern = whole.get("pattern")
    items = whole.get("items")
    if isinstance(items, Mapping) and "pattern" in items:
        pattern = items["pattern"]
    return ", ".join([*found, *([f"`{pattern}`"] if pattern and len(pattern) <= 80 else [])])


def words_of(node: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What it is for: what stands at the field, else at its type, of which the first paragraph counts."""
    return str(node.get("description") or whole.get("description") or "")
