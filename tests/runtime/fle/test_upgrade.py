"""Rotations that are under way when the schema is upgraded: what they said of a tenant, by field."""

from __future__ import annotations

import json

import psycopg
import pytest

from kilo.database.migrator import migrate, migrations

BEFORE = [each for each in migrations() if each.name < "0207"]


def plan(kind: str, tenant: str) -> str:
    table = {"table": "customers", "columns": {"email": "email"}, "documents": {"details": ["phone"]}}
    return json.dumps({"kind": kind, "tenant": tenant, "tables": [table]})


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("release", "planned", (True, False)),
        ("release", "running", (False, True)),
        ("release", "rolling-back", (True, True)),
        ("adopt", "planned", (True, False)),
        ("adopt", "verified", (True, True)),
        ("rekey", "running", (True, False)),
    ],
)
def test_what_a_rotation_had_said_of_a_tenant_is_said_of_its_fields(
    empty_database_url: str, kind: str, state: str, expected: tuple[bool, bool]
) -> None:
    url = empty_database_url
    migrate(url, files=BEFORE)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO fle_tenants (tenant, moving) VALUES ('gold', 'release')")
        for field in ("email", "phone", "iban"):
            connection.execute("INSERT INTO fle_scope (tenant, field) VALUES ('gold', %s)", (field,))
        connection.execute(
            "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state, created_at)"
            " VALUES (repeat('a', 64), 'gold', %s, 'ana', %s, now() + interval '1 minute')",
            (plan(kind, "gold"), state),
        )
        entry = {"action": "plan", "details": {"plan": "a" * 64, "signature": "0102"}}
        connection.execute(
            "INSERT INTO fle_audit VALUES (0, %s, sha256('x'))",
            (json.dumps(entry),),
        )
    migrate(url)
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT field, encrypted, plain_accepted FROM fle_scope ORDER BY 1"
        ).fetchall()
        assert found == [("email", *expected), ("iban", True, False), ("phone", *expected)]
        ((signature, before),) = connection.execute(
            "SELECT signature, scope_before FROM fle_rotations"
        ).fetchall()
        assert signature == b"\x01\x02"
        assert before is None if state == "planned" else sorted(before) == ["email", "iban", "phone"]
        assert connection.execute("SELECT moving FROM fle_tenants").fetchone() == (None,)
