"""Reads ``pulumi preview --json`` into changes.

The format is the engine's ``apitype`` ``PreviewDigest``; what is read here is what versions since 3.0
have had. Steps that change nothing, and the engine's own bookkeeping (providers, the stack), are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runtime.errors import BadInput

Operation = Literal["create", "update", "replace", "delete"]

_OPERATIONS: dict[str, Operation] = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "import": "create",
    "import-replacement": "replace",
}
_BOOKKEEPING = ("pulumi:pulumi:", "pulumi:providers:")


@dataclass(frozen=True)
class PropertyChange:
    """One property's path, as ``spec.replicas`` or ``rules[0].days``, and its values before and after.

    A value is None where the property was or will be absent.
    """

    path: str
    before: object
    after: object
    forces_replacement: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    operation: Operation
    type: str
    name: str
    urn: str
    properties: tuple[PropertyChange, ...] = ()
    protected: bool = False


def parse_preview(text: str) -> list[Change]:
    """The changes of a preview, in the engine's order.

    Raises:
        BadInput: the text is not the JSON of a preview.
    """
    try:
        document = json.loads(text)
        steps = document.get("steps", [])
        return [change for step in steps for change in _change(step)]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        msg = f"not the output of `pulumi preview --json`: {error}"
        raise BadInput(msg) from error


def _change(step: Mapping[str, Any]) -> Iterator[Change]:
    operation = _OPERATIONS.get(step["op"])
    type_, _, name = _parts(step["urn"])
    # A replacement also has its own create and delete steps; the one that names it is enough.
    if operation is None or type_.startswith(_BOOKKEEPING) or step.get("replacing"):
        return
    old, new = step.get("oldState") or {}, step.get("newState") or {}
    yield Change(
        operation,
        type_,
        name,
        step["urn"],
        tuple(_properties(step, old.get("inputs") or {}, new.get("inputs") or {})),
        bool(old.get("protect") or new.get("protect")),
    )


def _parts(urn: str) -> tuple[str, str, str]:
    """The type, the parents' types and the name of ``urn:pulumi:stack::project::types::name``."""
    _, _, types, name = urn.split("::", 3)
    parents, _, type_ = types.rpartition("$")
    return type_, parents, name


def _properties(
    step: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[PropertyChange]:
    if step["op"] in ("create", "delete"):
        return
    forcing: list[str] = step.get("replaceReasons") or []
    detailed: Mapping[str, Mapping[str, Any]] = step.get("detailedDiff") or {}
    paths = list(detailed) or list(dict.fromkeys([*(step.get("diffReasons") or ()), *forcing]))
    for path in paths:
        kind = str(detailed.get(path, {}).get("kind", ""))
        forces = kind.endswith("-replace") or path in forcing
        before, after = _at(old, path), _at(new, path)
        if before != after or forces:
            yield PropertyChange(path, before, after, forces)


def _at(value: Any, path: str) -> object:
    """The value at a property path of the engine, None when there is none."""
    for part in _path(path):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            index = int(part)
            value = value[index] if index < len(value) else None
        else:
            return None
    return value


def _path(path: str) -> list[str]:
    parts: list[str] = []
    rest = path
    while rest:
        if rest.startswith('["'):
            name, _, rest = rest[2:].partition('"]')
        elif rest.startswith("["):
            name, _, rest = rest[1:].partition("]")
        else:
            end = min((index for index in (rest.find("."), rest.find("[")) if index >= 0), default=len(rest))
            name, rest = rest[:end], rest[end:]
        parts.append(name)
        rest = rest.removeprefix(".")
    return parts
