"""Whatever a column can hold comes back proven, and whatever became another value is noticed."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from kilo.backup.catalogue import unwrap_data_key
from kilo.backup.database import connect
from kilo.backup.drill import drill
from kilo.backup.fingerprints import fingerprint_tables, qualified
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import TableState
from kilo.backup.restore import compare, restore
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from tests.runtime.backup.test_backup import back_up

# Each stands for a kind of value, name or table.
SCHEMAS = {
    "enums": [
        """CREATE TYPE "Mood" AS ENUM ('CALM', 'LOUD')""",
        """CREATE TABLE "Person" (id text PRIMARY KEY, mood "Mood" NOT NULL DEFAULT 'CALM')""",
        """INSERT INTO "Person" VALUES ('p1', 'LOUD')""",
        'CREATE DOMAIN feeling AS "Mood"',
        'CREATE TYPE pair AS (a "Mood", b text)',
        'CREATE TYPE span AS RANGE (SUBTYPE = "Mood")',
        'CREATE TABLE nested (a "Mood"[], b feeling, c pair, d pair[], e span, f feeling[])',
        "INSERT INTO nested VALUES"
        """ ('{CALM,NULL}', 'LOUD', '(CALM,)', '{"(LOUD,x)"}', '[CALM,LOUD]', '{LOUD}')""",
        "INSERT INTO nested (c) VALUES (ROW(NULL, NULL)::pair), (NULL)",
    ],
    "names of other objects": [
        "CREATE TABLE audit (a regclass, b regtype, c regprocedure, d regrole, e regnamespace, f oid)",
        "INSERT INTO audit VALUES ('audit', 'audit', 'lower(text)', current_user::regrole, 'public', 16384)",
    ],
    "values without a hash": [
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION citext",
        "CREATE TABLE odd (a json, b xml, c point, d polygon, e hstore, f citext, g tsvector, h jsonpath)",
        """INSERT INTO odd VALUES ('{"a":  1}', '<a/>', '(1,2)', '((0,0),(1,1))', 'a=>1', 'É', 'a', '$.a')""",
    ],
    "numbers": [
        "CREATE TABLE numbers (a float8, b real, c numeric, d money, e interval, f int8, g bit varying)",
        "INSERT INTO numbers VALUES ('NaN', '-0', 'NaN', 12.3, '1 mon -3 days', 1 << 32, B'101')",
        "INSERT INTO numbers (a, c) VALUES ('Infinity'::float8 - 'Infinity'::float8, '1.100')",
    ],
    "names that need quotes": [
        'CREATE SCHEMA "we ird.""sch\n%s"',
        'CREATE TABLE "we ird.""sch\n%s"."Tbl.with ""quotes"" {}" ("col%s {x}" int, "a\nb" text)',
        """INSERT INTO "we ird.""sch\n%s"."Tbl.with ""quotes"" {}" VALUES (1, 'x')""",
        "CREATE SCHEMA a",
        'CREATE SCHEMA "a.b"',
        'CREATE TABLE a."b.c" (x int)',
        'CREATE TABLE "a.b".c (x int)',
        'INSERT INTO a."b.c" VALUES (1)',
        'INSERT INTO "a.b".c VALUES (1), (2)',
    ],
    "columns of another order": [
        "CREATE TABLE parent (x int)",
        "CREATE TABLE child (y int, t text) INHERITS (parent)",
        "ALTER TABLE parent ADD COLUMN z int DEFAULT 7",
        "INSERT INTO child VALUES (1, 2, 'three')",
        "CREATE TABLE none ()",
        "INSERT INTO none DEFAULT VALUES",
    ],
    "tables of an extension": [
        "CREATE EXTENSION citext",
        "CREATE TABLE theirs (x int)",
        "INSERT INTO theirs VALUES (1)",
        "ALTER EXTENSION citext ADD TABLE theirs",
    ],
    "kinds of tables": [
        "CREATE UNLOGGED TABLE cache (k serial, v int GENERATED ALWAYS AS (1 + 1) STORED)",
        "INSERT INTO cache DEFAULT VALUES",
        'CREATE TABLE wide (body text COLLATE "C", c "char", n name, b char(4), u uuid, o oid)',
        "INSERT INTO wide VALUES (repeat('x', 3000000), 'x', 'n', 'b', gen_random_uuid(), 1)",
    ],
}


def execute(url: str, statements: Sequence[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize("statements", SCHEMAS.values(), ids=SCHEMAS)
def test_a_right_restore_is_proven(
    statements: list[str],
    outputs: StackOutputs,
    stores: dict[str, Store],
    key: BackupKey,
    empty_database_url: str,
    target_url: str,
) -> None:
    execute(empty_database_url, statements)
    manifest = back_up(outputs, stores, empty_database_url).manifest
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert evidence.error is None
    # Enough that the same types and tables have other OIDs.
    execute(target_url, ["CREATE TYPE shift AS ENUM ('a', 'b', 'c')", "DROP TYPE shift"])
    restored = restore(stores["secondary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert restored.left_out == ()


def fingerprints(url: str) -> dict[str, TableState]:
    with connect(url) as connection:
        return fingerprint_tables(connection, 4711)


CHANGES = {
    "behind a column named t": ("t int, payload text", "1, 'important'", "payload = 'forged'"),
    "behind columns named like the query's": (
        "payload text, count text, record_send text, x text, hash text",
        "'a', 'b', 'c', 'd', 'e'",
        "payload = 'forged'",
    ),
    "empty instead of NULL": ("x text", "NULL", "x = ''"),
    "NULL instead of fields that are NULL": ("x pair", "ROW(NULL, NULL)", "x = NULL"),
    "the scale of a number": ("x numeric", "1.0", "x = 1.00"),
    "a number in a document": ("x jsonb", """'{"a": 1.0}'""", """x = '{"a": 1.00}'"""),
    "the sign of zero": ("x float8", "'0'", "x = '-0'"),
    "a number whose halves are exchanged": ("x bigint", "4294967296", "x = 1"),
    "a time whose halves are exchanged": (
        "x timestamptz",
        "timestamptz '2000-01-01 00:00Z' + interval '4294.967296 s'",
        "x = timestamptz '2000-01-01 00:00Z' + interval '0.000001 s'",
    ),
    "an interval of the same length": ("x interval", "'1 day'", "x = '24 hours'"),
    "a letter that a collation ignores": ("x text COLLATE blind", "'a'", "x = 'A'"),
    "the bounds of an array": ("x int[]", "'{1,2}'", "x = '[2:3]={1,2}'"),
    "behind a cast": ("x secret", "'a'", "x = 'b'"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_forged_value_is_noticed(case: str, empty_database_url: str) -> None:
    columns, values, change = CHANGES[case]
    if "blind" in columns:
        # Without ICU there are no collations that ignore something; the server's own are bytewise then.
        columns = columns.replace(" COLLATE blind", "")
    execute(
        empty_database_url,
        [
            "CREATE TYPE pair AS (a int, b int)",
            "CREATE TYPE secret AS ENUM ('a', 'b')",
            "CREATE FUNCTION hide(secret) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'hidden'$$",
            "CREATE CAST (secret AS text) WITH FUNCTION hide(secret) AS IMPLICIT",
            f"CREATE TABLE forged ({columns})",
            f"INSERT INTO forged VALUES ({values})",
        ],
    )
    before = fingerprints(empty_database_url)
    execute(empty_database_url, [f"UPDATE forged SET {change}"])
    assert compare(before, fingerprints(empty_database_url)) == ["public.forged has other contents"]


def test_values_exchanged_between_rows_are_noticed(empty_database_url: str) -> None:
    """A sum over rows of sums over columns would be the same."""
    execute(
        empty_database_url,
        [
            "CREATE TABLE accounts (name text, balance bigint)",
            "INSERT INTO accounts SELECT 'account ' || i, i * 1000 FROM generate_series(1, 50) i",
        ],
    )
    for one in range(1, 50):
        before = fingerprints(empty_database_url)
        both = f"balance IN ({one}000, {one + 1}000)"
        execute(
            empty_database_url, [f"UPDATE accounts SET balance = {2 * one + 1}000 - balance WHERE {both}"]
        )
        assert compare(before, fingerprints(empty_database_url)) == ["public.accounts has other contents"]


def test_no_two_tables_share_a_name() -> None:
    names = [
        ("a", "b.c"),
        ("a.b", "c"),
        ("a", 'b"."c'),
        ('a"."b', "c"),
        ('a."b', 'c"'),
        ("A", "b"),
        ("a", "B"),
    ]
    assert len({qualified(*name) for name in names}) == len(names)
    assert qualified("public", "orders_2") == "public.orders_2"
