"""The page of costs is counted in the program and the price list as they are."""

from __future__ import annotations

from tests.infra.costs import PAGE, page


def test_the_tables_of_the_page_are_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "count again: python -m tests.infra.costs"
