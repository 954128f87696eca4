"""A validator of JSON Schema whose work on one payload has an end, whatever the schema and the payload are.

Regular expressions are RE2's: a match takes time in proportion to the text, where Python's own can take
twice as long for each further character. They mean what ECMA-262 says of them, as JSON Schema asks:
https://json-schema.org/draft/2020-12/json-schema-core#section-6.4. Left out are look-around and
back-references, for which nobody knows such a bound: https://github.com/google/re2/wiki/Syntax.

Parts that refer to themselves can ask the same of the same data again and again. So every keyword and every
match takes of a budget; counted, not timed, so that a payload passes everywhere or nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from functools import lru_cache
from typing import Any

from kilo.extras import requires

with requires("schemas"):
    import re2
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import ValidationError

MOST_STEPS = 200_000_000
"""Of one payload: five seconds at the very worst. The largest payload of the smallest items has enough."""

_KEYWORD_STEPS = 200
_STEPS: ContextVar[list[int]] = ContextVar("steps")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


class TooMuch(Exception):
    """The budget of the payload is spent."""


class NoPattern(Exception):
    """A regular expression that can't be used; why."""


@contextmanager
def budget(steps: int = MOST_STEPS) -> Generator[None]:
    """Give what is validated within so many steps; then :class:`TooMuch` is raised."""
    token = _STEPS.set([steps])
    try:
        yield
    finally:
        _STEPS.reset(token)


def _spend(steps: int) -> None:
    left = _STEPS.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooMuch


class Pattern:
    """A regular expression as JSON Schema has them: it is searched for, not anchored.

    Raises:
        NoPattern: RE2 can't use it.
    """

    def __init__(self, text: str) -> None:
        options: Any = re2.Options()
        options.log_errors = False
        options.never_capture = True
        try:
            found: Any = re2.compile(_ESCAPE.sub(_escape, text), options)
        except UnicodeEncodeError as error:
            msg = "holds half a surrogate pair"
            raise NoPattern(msg) from error
        except re2.error as error:
            why = error.args[0] if error.args else b""
            raise NoPattern(_said(why.decode(errors="replace") if isinstance(why, bytes) else why)) from error
        self._test: Callable[[bytes], object] = found.search
        self._steps: int = found.programsize

    def matches(self, text: str) -> bool:
        """Whether ``text`` has a match anywhere in it."""
        content = text.encode(errors="surrogatepass")
        _spend(self._steps * (1 + len(content)))
        return self._test(content) is not None


pattern_of = lru_cache(maxsize=256)(Pattern)
"""The pattern of a text, made once; each may take 8 MB for what it has matched."""


def _escape(match: re.Match[str]) -> str:
    # RE2 has no \u; the same character in its own form.
    return f"\\x{{{match[1]}}}" if match[1] else match[0]


def _said(why: str) -> str:
    what, _, part = why.partition(": ")
    if part.startswith(("(?=", "(?!", "(?<=", "(?<!")) or (part[:1] == "\\" and part[1:2].isdigit()):
        return f"{part}: without look-around and back-references, whose matching has no bound; use allOf, not"
    if "repetition" in what or "repeat" in what:
        return f"{part}: repeats at most 1,000 times in all; maxLength says more"
    return f"no regular expression: {what} {part}".rstrip()


def _pattern(validator: Any, pattern: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not pattern_of(pattern).matches(instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for text, part in patterns.items():
        for name, value in instance.items():
            if pattern_of(text).matches(name):
                yield from validator.descend(value, part, path=name, schema_path=text)


def _additional_properties(
    validator: Any, others: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    """Of a schema; false is refused before, as is ``unevaluatedProperties`` beside patterns."""
    if not validator.is_type(instance, "object"):
        return
    named = schema.get("properties", {})
    patterns = [pattern_of(text) for text in schema.get("patternProperties", {})]
    for name, value in instance.items():
        if name not in named and not any(each.matches(name) for each in patterns):
            yield from validator.descend(value, others, path=name)


def _unique_items(validator: Any, unique: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    # The library compares objects each with each.
    if unique and validator.is_type(instance, "array"):
        _spend(_KEYWORD_STEPS * len(instance))
        if len({_hashable(each) for each in instance}) < len(instance):
            yield ValidationError("has the same item twice")


def _hashable(value: Any) -> Any:
    """Equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return ("truth", value)
    if isinstance(value, dict):
        return ("object", frozenset((name, _hashable(each)) for name, each in value.items()))
    if isinstance(value, (list, tuple)):
        return ("array", *(_hashable(each) for each in value))
    return value


def _is_integer(_checker: object, value: object) -> bool:
    """As JSON Schema has it: 1.0 is one; the library knows that of floats alone."""
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def _counted(work: Any) -> Any:
    def counted(*arguments: Any) -> Any:
        _spend(_KEYWORD_STEPS)
        return work(*arguments)

    return counted


BoundedValidator: Any = validators.extend(
    Draft202012Validator,
    validators={
        name: _counted(work)
        for name, work in {
            **Draft202012Validator.VALIDATORS,
            "additionalProperties": _additional_properties,
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "uniqueItems": _unique_items,
        }.items()
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
"""Validates within a :func:`budget`."""
