"""JSON as it is taken, kept and compared."""

from __future__ import annotations

from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

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
