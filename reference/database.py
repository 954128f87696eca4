"""``docs/tables.md``: the tables that others may read, with their columns, from a real database.

What is not here is the platform's own and changes without a word. ``python -m reference.database URL`` prints
the page; a test holds the committed one to the migrations.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import psycopg

from reference.tables import table

PROMISED: Mapping[str, str] = {
    "consumer_gaps": "Positions that a consumer missed, since the stream had given them up.",
    "consumer_positions": "How far each consumer has read.",
    "dead_letters": "Events that a consumer could not handle, as they came.",
    "events": "What ingest took, its business rows.",
    "fle_audit": "What was done with keys, chained; see field encryption.",
    "inbox": "What had its effect at each consumer; for as long as its window.",
    "outbox": "Events that wait or were published; a service writes here, by `INSERT` alone.",
    "outbox_blocked": "Ordering keys whose first event the bus does not take.",
    "ramp_annotations": "Steps of ramps as dashboards show them.",
    "ramp_steps": "Every step of every ramp, and why.",
}
"""Whoever adds a column needs no word here; whoever removes or retypes one says so in the changelog."""

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_READERS = """
SELECT DISTINCT grantee FROM information_schema.role_table_grants
WHERE table_schema = %s AND table_name = %s AND privilege_type = 'SELECT' AND grantee LIKE 'kilo\\_%%'
ORDER BY 1
"""
_HEAD = """# Tables that others may read

Ask them for what no command shows; never write to them but for the outbox. They are in the schema that
`kilo:database.schema_name` names. A column that is removed or means something else is in the changelog; a
table that is not here is the platform's own.

A role reads what it was granted: `GRANT SELECT ON dead_letters TO reporting`. Encrypted fields lie as
ciphertext. Made by `python -m reference.database` from the migrations.
"""


def tables_page(connection: psycopg.Connection[Any], schema: str = "public") -> str:
    """The page, of a database with the platform's tables."""
    parts = [_HEAD]
    for name, words in PROMISED.items():
        readers = ", ".join(f"`{reader}`" for (reader,) in connection.execute(_READERS, (schema, name)))
        columns = connection.execute(_COLUMNS, (schema, name)).fetchall()
        parts.append(f"\n## {name}\n\n{words} Read by {readers or 'nobody yet'}.\n\n")
        rows = [(f"`{column}`", kind, "yes" if always else "no") for column, kind, always in columns]
        parts.append(table(["column", "type", "always there"], rows))
    return "".join(parts)


if __name__ == "__main__":
    with psycopg.connect(sys.argv[1]) as given:
        sys.stdout.write(tables_page(given))
