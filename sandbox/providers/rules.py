"""Checks of single properties that several resource types have in common. Unknowns always pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties, Value


def at(inputs: Properties, path: str) -> Value:
    """The value at a path of names, as in ``rule.defaultRetention.days``; None when a part is missing."""
    value: Value = inputs
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def within(inputs: Properties, path: str, least: int, most: int) -> Iterable[Failure]:
    """An integer between two bounds, both included."""
    value = at(inputs, path)
    if isinstance(value, int) and not least <= value <= most:
        yield Failure(path, f"must be from {least} to {most}, and is {value}")


def one_of(inputs: Properties, path: str, allowed: Collection[str]) -> Iterable[Failure]:
    """One of a few strings."""
    value = at(inputs, path)
    if isinstance(value, str) and value not in allowed:
        yield Failure(path, f'must be one of {", ".join(sorted(allowed))}, and is "{value}"')


def matches(inputs: Properties, path: str, pattern: str, words: str) -> Iterable[Failure]:
    """A string that fits a pattern, which ``words`` say in plain language."""
    value = at(inputs, path)
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield Failure(path, f'must be {words}, and is "{value}"')


def each(
    inputs: Properties, path: str, check: Callable[[Properties], Iterable[Failure]]
) -> Iterable[Failure]:
    """A check of every object in a list, with its place in the path."""
    value: Any = at(inputs, path)
    items: list[Any] = value if isinstance(value, list) else []
    for index, item in enumerate(items):
        if isinstance(item, dict):
            for failure in check(item):
                yield Failure(f"{path}[{index}].{failure.path}", failure.reason)
