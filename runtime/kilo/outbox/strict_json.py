"""JSON without its loose ends: what is read here is stored and delivered as an equal value.

Python's own reader takes the last of two equal keys, rounds fractions to doubles, accepts NaN, and lets
through what PostgreSQL's jsonb can't hold (U+0000, lone surrogates). This one refuses all of it and keeps
every number exact: whole numbers as ``int``, others as ``Decimal``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from typing import Any, NoReturn

import rfc8785

_DEEPEST = 100
_LONGEST_NUMBER = 400
"""Digits of a number as jsonb writes it out: 1e3 has four, and so has 0.001."""

_TOO_LARGE = 10**_LONGEST_NUMBER
_MOST_VALUES = 1 << 20
"""A payload of the largest size has fewer; a list that holds itself many times over has more."""

_EXACT = 2**53


class NotStrict(ValueError):
    """The text is not JSON, or not JSON that can be kept as it is.

    Attributes:
        pointer: where in the document (RFC 6901), empty for the whole of it.
        problem: what is wrong there.
    """

    def __init__(self, problem: str, pointer: str = "") -> None:
        super().__init__(f"{pointer or 'body'}: {problem}")
        self.pointer = pointer
        self.problem = problem


def parse(text: str | bytes) -> Any:
    """Read a JSON text (RFC 8259).

    Raises:
        NotStrict: it is not one, or holds what can't be kept.
    """
    try:
        # A byte order mark is not JSON, and other encodings than UTF-8 are not for exchange.
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = _DECODER.decode(decoded)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = f"nested deeper than {_DEEPEST}"
    else:
        # Bytes of UTF-8 without escapes hold neither U+0000 nor half a pair, and what has few brackets and
        # commas is neither deep nor many values: looking at each is for the rest.
        if (
            isinstance(text, str)
            or "\\u" in decoded
            or decoded.count("{") + decoded.count("[") > _DEEPEST
            or decoded.count(",") > _MOST_VALUES - 2 * _DEEPEST
        ):
            check(value)
        return value
    # Outside of the handlers: the library's errors hold the whole document, and must not hang on ours.
    raise NotStrict(problem)


def write(value: Any) -> str:
    """Write what :func:`parse` read or :func:`check` let pass, numbers as they were."""
    try:
        return _WRITER.encode(value)
    except _NotPlain:
        return "".join(_pieces(value))


def canonical(value: Any) -> bytes:
    """The canonical form of RFC 8785 (JCS).

    RFC 8785 leaves numbers open that a double does not hold; here they are their exact decimal digits.
    """
    try:
        text = _CANONICAL_WRITER.encode(value)
    except _NotPlain:
        return _canonical(value).encode()
    # The writer in C sorts names by code points and writes integers in full and floats as Python does: where
    # that could differ from RFC 8785, the text is made by the book.
    by_the_book = (
        _LONG_NUMBER.search(text)
        or (not text.isascii() and _HIGH.search(text))
        or (("." in text or "e-" in text or "e+" in text) and _FLOAT.search(text))
    )
    return (_canonical(value) if by_the_book else text).encode()


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        # RFC 8785, section 3.2.3: sorted by UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_string(name)}:{_canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return _number(Decimal(int(value)))
    return _number(value if isinstance(value, Decimal) else Decimal(repr(float(value))))


def _number(number: Decimal) -> str:
    if number == number.to_integral_value() and abs(number) <= _EXACT:
        return str(int(number))
    double = float(number)
    if Decimal(repr(double)) == number:
        return rfc8785.dumps(double).decode()
    # Not normalize(), which rounds to the context's 28 digits.
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        separator = "{"
        for name, each in value.items():
            yield f"{separator}{_string(name)}: "
            yield from _pieces(each)
            separator = ", "
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        separator = "["
        for each in value:
            yield separator
            yield from _pieces(each)
            separator = ", "
        yield "]" if value else "[]"
    elif isinstance(value, Decimal):
        yield str(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        # An enumeration's member by its number.
        yield str(int(value))
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        # The reader does not say where it is: the key itself must do.
        problem = f"the key {twice[:80]!r} stands twice in one object"
        raise NotStrict(problem, f"/…/{twice[:80]}")
    return found


def _whole(digits: str) -> int:
    if len(digits) - digits.startswith("-") > _LONGEST_NUMBER:
        problem = f"a number has more than {_LONGEST_NUMBER} digits"
        raise NotStrict(problem)
    return int(digits)


def _fraction(text: str) -> Decimal:
    # A sign, a point and an exponent come on top of the digits.
    number = Decimal(text) if len(text) <= _LONGEST_NUMBER + 32 else None
    if number is None or not _is_short(number):
        problem = f"a number has more than {_LONGEST_NUMBER} digits"
        raise NotStrict(problem)
    return number


def _is_short(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    # An infinity or no number has a letter for it.
    return isinstance(exponent, int) and max(number.adjusted(), 0) + max(-exponent, 0) < _LONGEST_NUMBER


def _constant(name: str) -> NoReturn:
    problem = f"{name} is not JSON"
    raise NotStrict(problem)


def check(document: Any) -> None:
    """See that :func:`parse` would read again what :func:`write` makes of ``document``.

    Objects are ``dict``, arrays ``list`` or ``tuple``, numbers ``int``, ``float`` or ``Decimal``.

    Raises:
        NotStrict: it would not, with the place and without the value.
    """
    waiting: list[tuple[Any, str, int]] = [(document, "", 0)]
    left = _MOST_VALUES
    while waiting:
        value, pointer, depth = waiting.pop()
        left -= 1
        if depth > _DEEPEST:
            problem = f"nested deeper than {_DEEPEST}"
            raise NotStrict(problem, pointer[:200])
        if left < 0:
            problem = f"more than {_MOST_VALUES} values"
            raise NotStrict(problem)
        if isinstance(value, str):
            _check_text(value, pointer)
        elif isinstance(value, dict):
            for name, each in value.items():
                if not isinstance(name, str):
                    problem = f"a key is {_a(name)}; JSON's keys are text"
                    raise NotStrict(problem, pointer)
                _check_text(name, pointer)
                step = name.replace("~", "~0").replace("/", "~1")
                waiting.append((each, f"{pointer}/{step}", depth + 1))
        elif isinstance(value, list | tuple):
            waiting.extend((each, f"{pointer}/{n}", depth + 1) for n, each in enumerate(value))
        elif value is not None and not isinstance(value, bool):
            _check_number(value, pointer)


def _check_number(value: Any, pointer: str) -> None:
    if isinstance(value, int):
        kept = abs(value) < _TOO_LARGE
    elif isinstance(value, float):
        kept = isfinite(value)
    elif isinstance(value, Decimal):
        kept = _is_short(value)
    else:
        problem = f"{_a(value)} is not JSON; give text (dates as ISO 8601), a number, a list or a dict"
        raise NotStrict(problem, pointer)
    if not kept:
        problem = f"a number is not finite, or has more than {_LONGEST_NUMBER} digits"
        raise NotStrict(problem, pointer)


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _check_text(text: str, pointer: str) -> None:
    if "\x00" in text:
        problem = "holds U+0000, which can't be stored"
        raise NotStrict(problem, pointer)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"holds half a surrogate pair at character {error.start}"
    else:
        return
    # Outside of the handler: the codec's error holds the text.
    raise NotStrict(problem, pointer)


class _NotPlain(Exception):
    """A value that the writer in C does not write as it was."""


def _refuse(value: Any) -> NoReturn:
    raise _NotPlain(type(value).__name__)


# Made once: ``json.loads`` makes a decoder a call for what is not its default.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_fraction, parse_constant=_constant
)
_WRITER = json.JSONEncoder(ensure_ascii=False, default=_refuse, check_circular=False, allow_nan=False)
_CANONICAL_WRITER = json.JSONEncoder(
    ensure_ascii=False,
    default=_refuse,
    check_circular=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
)
_LONG_NUMBER, _HIGH = re.compile("[0-9]{16}"), re.compile(r"[\ud800-\U0010ffff]")
_FLOAT = re.compile(r"[0-9](?:\.|e[-+])")
