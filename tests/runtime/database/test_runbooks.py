"""What a runbook has people ask the database, it can be asked."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from tests.test_project import in_code

RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"


def test_each_query_of_a_runbook_names_what_there_is(database_url: str) -> None:
    found = [
        (runbook.stem, query)
        for runbook in sorted(RUNBOOKS.glob("*.md"))
        for query in re.findall(r"\bselect [^;\n]+", in_code(runbook.read_text("utf-8")), re.IGNORECASE)
    ]
    assert len(found) > 5
    refused: list[tuple[str, str, str]] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        for runbook, query in found:
            asked = re.sub(r"\b(PID|PROCESS)\b", "1", query)
            try:
                connection.execute(f"PREPARE query AS {asked}")  # type: ignore[call-overload]
                connection.execute("DEALLOCATE query")
            except psycopg.Error as error:
                refused.append((runbook, query, str(error)))
    assert refused == []
