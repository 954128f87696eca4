"""The sample consumer keeps nothing of a decrypted value that says whose it is."""

from __future__ import annotations

from importlib.resources import files

import psycopg
import pytest

from kilo.consumer.projection import contact_hint

HINTS = [
    ("ana@example.com", "…@….com"),
    ("a@ana-nowak.name", "…@….name"),
    ("ana@nowak", "…@…"),
    ("ana@[192.0.2.1]", "…@…"),
    ("ana@mail.nowak-und-töchter", "…@…"),
    ("no address", None),
    (None, None),
]


@pytest.mark.parametrize(("email", "hint"), HINTS)
def test_a_hint_does_not_say_whose_it_is(email: str | None, hint: str | None) -> None:
    assert contact_hint({"email": email}) == hint


def test_hints_of_before_lose_what_they_said(database_url: str) -> None:
    migration = files("kilo.database") / "migrations" / "0150_projection_hint.sql"
    with psycopg.connect(database_url) as connection:
        for number, hint in enumerate(["a…@ana-nowak.name", "…@….com", None, "a…@nowak"]):
            connection.execute(
                "INSERT INTO projection (tenant, aggregate, aggregate_id, events, last_kind,"
                " last_fingerprint, contact_hint)"
                " VALUES ('acme', 'order', %s, 1, 'order.paid', 'acme/1', %s)",
                (str(number), hint),
            )
        connection.execute(migration.read_text().encode())
        rows = connection.execute("SELECT contact_hint FROM projection ORDER BY aggregate_id").fetchall()
    assert [row[0] for row in rows] == ["…@….name", "…@….com", None, "…@…"]
