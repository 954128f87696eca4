"""The shape of a resource type's properties, taken from the installed Pulumi SDK itself.

The SDK's ``…Args`` classes are generated from the official provider's schema, so names, types and
required properties checked against them are the official ones of exactly the installed version.
What an SDK does not say (ranges, patterns, which properties replace) each resource type adds.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import threading
import types
import typing
import warnings
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pulumi

# The public surface has no way to read a class's property types; the generated SDKs stand on these.
from pulumi._types import (
    input_type_py_to_pulumi_names,
    input_type_types,
    is_input_type,
    resource_types,
)

from sandbox.providers.values import UNKNOWN, Value


@dataclass(frozen=True)
class Failure:
    """A property that is wrong: its path, as in ``rules[0].bucketKeyEnabled``, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ObjectShape:
    """An object with known properties."""

    properties: Mapping[str, Any]
    required: frozenset[str]


_IMPORTING = threading.Lock()


class UnknownType(Exception):
    """The installed SDK has no such resource type."""


@cache
def input_shape(token: str) -> ObjectShape:
    """The shape of a resource type's inputs.

    Raises:
        UnknownType: the SDK has no such type.
    """
    module, name = _locate(token)
    # An SDK calls them InitArgs where …Args is already the name of a nested type.
    return _object(getattr(module, f"{name}InitArgs", None) or getattr(module, f"{name}Args"))


@cache
def output_names(token: str) -> frozenset[str]:
    """The names of a resource type's outputs, its inputs included."""
    module, name = _locate(token)
    return frozenset(resource_types(getattr(module, name)))


def unknown_settings(package: str, settings: Mapping[str, Value]) -> Iterator[Failure]:
    """The names in a provider's configuration that the SDK's provider does not take."""
    with _IMPORTING:
        module = importlib.import_module(f"pulumi_{package}")
    known = set(input_type_py_to_pulumi_names(module.ProviderArgs).values()) | {
        "version",
        "pluginDownloadURL",
    }
    for name in settings:
        if name not in known and not name.startswith("__"):
            yield Failure(name, f"unknown setting; known are {', '.join(sorted(known))}")


def _locate(token: str) -> tuple[types.ModuleType, str]:
    # The SDKs load their modules on first use, and a second thread would see half of one.
    with _IMPORTING, warnings.catch_warnings():
        # Loading a module warns of everything old in it, used or not.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _import(token)


def _import(token: str) -> tuple[types.ModuleType, str]:
    package, path, name = token.split(":")
    folder = path.split("/")[0]
    module_name = f"pulumi_{package}" + ("" if folder == "index" else f".{folder}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownType(token) from error
    if not hasattr(module, f"{name}Args"):
        raise UnknownType(token)
    return module, name


@cache
def _object(cls: type) -> ObjectShape:
    names = input_type_py_to_pulumi_names(cls)
    parameters = inspect.signature(cls.__init__).parameters
    required = {
        pulumi_name
        for python_name, pulumi_name in names.items()
        if parameters[python_name].default is inspect.Parameter.empty
    }
    return ObjectShape(input_type_types(cls), frozenset(required))


def failures(shape: ObjectShape, value: Mapping[str, Value], path: str = "") -> Iterator[Failure]:
    """Every way in which ``value`` departs from ``shape``. Unknowns and nulls fit anywhere."""
    for name, item in value.items():
        if name.startswith("__"):
            continue
        if name not in shape.properties:
            yield Failure(
                _join(path, name), f"unknown property; known are {', '.join(sorted(shape.properties))}"
            )
        elif item is not None:
            yield from _type_failures(shape.properties[name], item, _join(path, name))
    for name in sorted(shape.required):
        if value.get(name) is None:
            yield Failure(_join(path, name), "missing, and required")


def _type_failures(expected: Any, value: Value, path: str) -> Iterator[Failure]:
    if value is UNKNOWN:
        return
    alternatives = _alternatives(expected)
    if len(alternatives) > 1:
        problems = [list(_type_failures(alternative, value, path)) for alternative in alternatives]
        yield from min(problems, key=lambda found: (len(found), -len(found[0].path) if found else 0))
        return
    (kind,) = alternatives
    origin = typing.get_origin(kind)
    if kind is Any:
        return
    if origin is Mapping or is_input_type(kind):
        yield from _object_failures(kind, value, path)
    elif origin is Sequence:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _type_failures(typing.get_args(kind)[0], item, f"{path}[{index}]")
        else:
            yield _mismatch(path, "a list", value)
    elif issubclass(kind, enum.Enum):
        # Official providers take any string where the schema relaxes an enum, so its type alone counts.
        if not isinstance(value, str | int | float):
            yield _mismatch(path, "a string", value)
    elif not _is_scalar(value, kind):
        yield _mismatch(path, _WORDS[kind], value)


def _object_failures(kind: Any, value: Value, path: str) -> Iterator[Failure]:
    if not isinstance(value, dict):
        yield _mismatch(path, "an object", value)
    elif is_input_type(kind):
        yield from failures(_object(kind), value, path)
    else:
        for name, item in value.items():
            yield from _type_failures(typing.get_args(kind)[1], item, _join(path, name))


def _alternatives(expected: Any) -> list[Any]:
    origin = typing.get_origin(expected)
    if origin is typing.Union or origin is types.UnionType:
        found: list[Any] = []
        for argument in typing.get_args(expected):
            base = typing.get_origin(argument) or argument
            if base in {types.NoneType, pulumi.Output, Awaitable}:
                continue
            # A TypedDict is the same object written as a dict literal.
            if typing.is_typeddict(argument):
                continue
            found.extend(_alternatives(argument))
        return list(dict.fromkeys(found)) or [Any]
    return [expected]


_WORDS: dict[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
}


def _is_scalar(value: Value, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _mismatch(path: str, expected: str, value: Value) -> Failure:
    found = _WORDS.get(type(value), "a list" if isinstance(value, list) else type(value).__name__)
    return Failure(path, f"must be {expected}, and is {found}")


def _join(path: str, name: str) -> str:
    plain = name.replace("-", "_").isidentifier()
    if plain:
        return f"{path}.{name}" if path else name
    return f'{path}["{name}"]'
