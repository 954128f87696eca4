"""The page of tables that others may read is what the migrations make."""

from __future__ import annotations

from pathlib import Path

import psycopg

from reference.database import PROMISED, tables_page

PAGE = Path(__file__).parents[3] / "docs" / "tables.md"


def test_the_page_of_tables_is_current(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        made = tables_page(connection)
        there = {name for (name,) in connection.execute("SELECT relname FROM pg_class").fetchall()}
    assert there >= PROMISED.keys()
    assert made == PAGE.read_text(encoding="utf-8"), f"make it anew; it is:\n{made}"
