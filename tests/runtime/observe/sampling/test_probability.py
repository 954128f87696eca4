"""Thresholds and randomness in tracestate, as the standard has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilo.observe.sampling.probability import (
    SPACE,
    encode,
    entry_with,
    probability_of,
    randomness_of,
    threshold_in,
    threshold_of,
)


# The examples of https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/#sampling-threshold-value-th.
@pytest.mark.parametrize(("probability", "text"), [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.125, "e")])
def test_thresholds_are_written_as_the_standard_has_them(probability: float, text: str) -> None:
    assert encode(threshold_of(probability)) == text
    assert threshold_in(f"th:{text}") == threshold_of(probability)


@given(st.floats(0, 1))
def test_a_threshold_never_keeps_much_more_than_was_asked(probability: float) -> None:
    assert probability_of(threshold_of(probability)) <= probability + 1e-12
    assert probability_of(threshold_of(probability)) >= probability - 2**-15


@given(st.integers(0, SPACE - 1))
def test_a_threshold_is_read_back(threshold: int) -> None:
    assert threshold_in(entry_with(threshold, None)) == threshold


def test_randomness_is_the_entrys_or_the_ids() -> None:
    assert randomness_of(0xABC << 56 | 0x123, None) == 0x123
    assert randomness_of(1, "th:8;rv:6e6d1a75832a2f") == 0x6E6D1A75832A2F


@pytest.mark.parametrize(
    "entry", ["rv:123", "rv:6e6d1a75832a2g", "xrv:6e6d1a75832a2f", "th:", "rv:6E6D1A75832A2F", "x" * 400]
)
def test_what_is_malformed_is_as_if_absent(entry: str) -> None:
    assert randomness_of(7, entry) == 7
    assert threshold_in(entry) is None


def test_other_parts_of_the_entry_are_kept() -> None:
    assert entry_with(SPACE // 2, "th:c;rv:6e6d1a75832a2f;p:1") == "th:8;rv:6e6d1a75832a2f;p:1"
    assert entry_with(0, "a b;\n;rv:6e6d1a75832a2f") == "th:0;rv:6e6d1a75832a2f"
