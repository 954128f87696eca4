"""JSON as it is taken, kept and compared."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from kilo.outbox import strict_json
from kilo.outbox.strict_json import NotStrict, canonical, parse, write

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), inner)
    ),
)


@given(VALUES)
def test_what_is_written_reads_as_it_was(value: object) -> None:
    assert parse(write(value)) == value


@pytest.mark.parametrize(
    "number", ["1.10", "1E+5", "-0.000001", "123456789012345678901234567890.5", "9007199254740993"]
)
def test_numbers_stay_as_precise_as_they_came(number: str) -> None:
    assert Decimal(write(parse(number))) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"x": {"a": 1, "a": 1}}', "'a' stands twice"),
        ('{"a": "\\u0000"}', "/a: holds U\\+0000"),
        ('{"a": "\\ud800"}', "/a: holds half a surrogate"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e999}', "more than 400 digits"),
        ("9" * 500, "more than 400 digits"),
        ("{", "not JSON: .* at line 1"),
        ("[" * 5000, "nested deeper|not JSON"),
        ("[" * 102 + "]" * 102, "nested deeper than 100"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(NotStrict, match=said):
        parse(text)


def test_only_utf8_is_taken() -> None:
    with pytest.raises(NotStrict, match="not UTF-8 at byte 1"):
        parse(b'"\xff"')


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        ),
    )
)
def test_the_canonical_form_is_that_of_rfc_8785(value: object) -> None:
    ours = Decimal(repr(value)) if isinstance(value, float) else value
    assert canonical(_exact(ours)) == rfc8785.dumps(value)  # pyright: ignore[reportArgumentType]


def _exact(value: object) -> object:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, list):
        return [_exact(each) for each in value]
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items()}
    return value


@given(
    st.integers(-(10**300), 10**300)
    | st.decimals(allow_nan=False, allow_infinity=False, places=60, min_value=-1, max_value=1)
)
def test_the_canonical_form_keeps_every_digit_of_a_number(number: Decimal | int) -> None:
    exact = Decimal(number)
    assert Decimal(canonical([exact])[1:-1].decode()) == exact
    assert canonical([exact]) == canonical([parse(write(exact))])


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | _TEXTS
    | st.integers(min_value=10**14, max_value=10**24)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(_VALUES)
def test_what_is_written_in_c_is_what_is_written_by_the_book(value: Any) -> None:
    by_the_book = strict_json._canonical(value).encode()  # pyright: ignore[reportPrivateUsage]
    assert strict_json.canonical(value) == by_the_book
    pieces = "".join(strict_json._pieces(value))  # pyright: ignore[reportPrivateUsage]
    assert strict_json.write(value) == pieces


@pytest.mark.parametrize(
    "text", ['{"a": "\\u0000"}', '{"\\ud800": 1}', "[" * 102 + "]" * 102, '{"a":' * 102 + "1" + "}" * 102]
)
def test_bytes_are_looked_at_as_closely_as_text(text: str) -> None:
    for each in (text, text.encode()):
        with pytest.raises(strict_json.NotStrict):
            strict_json.parse(each)
