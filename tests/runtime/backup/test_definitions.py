"""What is not a row comes back as well, and what got lost of it is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from kilo.backup.catalogue import unwrap_data_key
from kilo.backup.database import connect
from kilo.backup.definitions import Sequence, compare_definitions, read_definitions
from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.restore import restore
from kilo.backup.run import run_backup
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from tests.runtime.backup.test_backup import back_up
from tests.runtime.backup.test_values import execute

SCHEMA = [
    "CREATE SCHEMA shop",
    "CREATE TYPE shop.state AS ENUM ('new', 'paid')",
    "CREATE DOMAIN shop.year AS int CHECK (VALUE BETWEEN 1901 AND 2155)",
    "CREATE TYPE shop.place AS (street text, year shop.year)",
    "CREATE FUNCTION shop.twice(n int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'",
    "CREATE FUNCTION shop.notice() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
    "CREATE AGGREGATE shop.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
    "CREATE TABLE shop.orders (id serial PRIMARY KEY, kind varchar(9) CHECK (kind IN ('a', 'b')),"
    " state shop.state DEFAULT 'new', n int CHECK (n > 0),"
    " twice int GENERATED ALWAYS AS (shop.twice(n)) STORED,"
    " at timestamptz DEFAULT now() - interval '1 day')",
    "CREATE TABLE shop.lines (id int GENERATED ALWAYS AS IDENTITY (START 5), number int"
    " REFERENCES shop.orders ON DELETE CASCADE) PARTITION BY RANGE (number)",
    "CREATE TABLE shop.lines_1 PARTITION OF shop.lines FOR VALUES FROM (1) TO (100)",
    "INSERT INTO shop.orders (kind, n) SELECT 'a', i FROM generate_series(1, 10) i",
    "CREATE INDEX lookup ON shop.orders (lower(kind)) WHERE kind IN ('a', 'b')",
    "CREATE INDEX parted ON shop.lines (number)",
    "CREATE STATISTICS shop.joint ON kind, n FROM shop.orders",
    "CREATE VIEW shop.seen AS SELECT * FROM shop.orders WHERE kind IN ('a', 'b') OR (n > 3 AND n < 5)",
    "CREATE MATERIALIZED VIEW shop.kept AS SELECT count(*) FROM shop.seen",
    "CREATE RULE shy AS ON DELETE TO shop.seen DO INSTEAD NOTHING",
    "CREATE TRIGGER told BEFORE UPDATE ON shop.orders FOR EACH ROW WHEN (NEW.kind IN ('a', 'b'))"
    " EXECUTE FUNCTION shop.notice()",
    "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON shop.orders TO {role} USING (kind IN ('a', 'b'))",
    "GRANT USAGE ON SCHEMA shop TO {role}",
    "GRANT SELECT, UPDATE (n) ON shop.orders TO {role} WITH GRANT OPTION",
    "REVOKE EXECUTE ON FUNCTION shop.twice FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO {role}",
    "ALTER TABLE shop.lines OWNER TO {role}",
    "CREATE PUBLICATION changes FOR TABLE shop.orders (id, kind) WHERE (n > 3)",
    "COMMENT ON COLUMN shop.orders.kind IS 'of two'",
    "CREATE SEQUENCE shop.counter INCREMENT BY -3",
    "SELECT setval('shop.counter', -33)",
    "CREATE EXTENSION citext",
    "CREATE FUNCTION shop.ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$",
    "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION shop.ddl()",
    "CREATE CAST (shop.place AS text) WITH INOUT",
    "CREATE TEXT SEARCH CONFIGURATION shop.words (COPY = simple)",
    "SELECT lo_from_bytea(4711, 'a large object')",
    "GRANT SELECT ON LARGE OBJECT 4711 TO {role}",
]
LOSSES = {
    "SELECT setval('shop.orders_id_seq', 1)": "sequences: shop.orders_id_seq is at",
    "ALTER SEQUENCE shop.counter INCREMENT BY 1": "sequences: shop.counter is another",
    "REVOKE SELECT ON shop.orders FROM {role} CASCADE": "grants: TABLE shop.orders is",
    "REVOKE UPDATE (n) ON shop.orders FROM {role} CASCADE": "grants: (n) ON TABLE shop.orders is missing",
    "GRANT EXECUTE ON FUNCTION shop.twice TO PUBLIC": "grants: ROUTINE shop.twice(integer) is missing",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA shop REVOKE SELECT ON TABLES FROM {role}": "default privileges: ",
    "ALTER TABLE shop.lines OWNER TO CURRENT_USER": "owners: TABLE shop.lines is another",
    "DROP POLICY own ON shop.orders": "policies: own on shop.orders is missing",
    "ALTER POLICY own ON shop.orders USING (true)": "policies: own on shop.orders is another",
    "ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY": "tables: shop.orders is another",
    "ALTER TABLE shop.orders DROP CONSTRAINT orders_n_check": "constraints: orders_n_check on shop.orders is",
    "ALTER DOMAIN shop.year DROP CONSTRAINT year_check": "constraints: year_check on shop.year is missing",
    "ALTER TABLE shop.orders ALTER state DROP DEFAULT": "columns: shop.orders.state is another",
    "ALTER TABLE shop.orders ALTER n SET NOT NULL": "columns: shop.orders.n is another",
    "DROP INDEX shop.lookup": "indexes: shop.lookup is missing",
    "DROP STATISTICS shop.joint": "statistics: shop.joint is missing",
    "CREATE OR REPLACE VIEW shop.seen AS SELECT * FROM shop.orders": "views: shop.seen is another",
    "DROP MATERIALIZED VIEW shop.kept": "views: shop.kept is missing",
    "DROP RULE shy ON shop.seen": "rules: shy on shop.seen is missing",
    "CREATE OR REPLACE FUNCTION shop.notice() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$":
        "functions: shop.notice() is another",
    "DROP AGGREGATE shop.total(int)": "functions: shop.total(integer) is missing",
    "DROP TRIGGER told ON shop.orders": "triggers: told on shop.orders is missing",
    "ALTER TABLE shop.orders DISABLE TRIGGER told": "triggers: told on shop.orders is another",
    "ALTER PUBLICATION changes SET TABLE shop.orders": "publications: changes is another",
    "COMMENT ON COLUMN shop.orders.kind IS NULL": "comments: table column shop.orders.kind is missing",
    "ALTER TYPE shop.state ADD VALUE 'sent'": "types: shop.state is another",
    "DROP EVENT TRIGGER watch": "event triggers: watch is missing",
    "DROP EXTENSION citext": "extensions: citext is missing",
    "DROP CAST (shop.place AS text)": "others: cast (shop.place AS pg_catalog.text) is missing",
    "DROP TEXT SEARCH CONFIGURATION shop.words": "others: text search configuration shop.words is missing",
    "CREATE VIEW shop.more AS SELECT 1": "views: shop.more is not in the backup",
    "REVOKE CONNECT ON DATABASE {database} FROM {role}": "database: CONNECT of {role} is missing",
    "ALTER DATABASE {database} RESET TimeZone": "database: TimeZone of everybody is missing",
    "ALTER ROLE {role} IN DATABASE {database} RESET ALL": "database: search_path of {role} is missing",
}  # fmt: skip


@pytest.fixture
def role(empty_database_url: str) -> Iterator[str]:
    """A role that is gone afterwards, as long as nothing is its."""
    name = "shop_reader"
    execute(empty_database_url, [f"CREATE ROLE {name} LOGIN"])
    yield name
    execute(empty_database_url, [f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}"])


@pytest.fixture
def shop_url(empty_database_url: str, role: str) -> str:
    """A database with an object of every kind, and settings of its own."""
    with psycopg.connect(empty_database_url) as connection:
        name = sql.Identifier(connection.info.dbname).as_string()
    settings = [
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO {role}",
        f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'",
        f'ALTER DATABASE {name} SET search_path = shop, "odd, name", public',
        f"ALTER DATABASE {name} SET shop.colour = 'sky blue'",
        f"ALTER ROLE {role} IN DATABASE {name} SET search_path = shop",
        f"ALTER DATABASE {name} CONNECTION LIMIT 77",
        f"COMMENT ON DATABASE {name} IS 'of the shop'",
    ]
    execute(empty_database_url, [statement.format(role=role) for statement in SCHEMA] + settings)
    return empty_database_url


@pytest.fixture
def restored_url(shop_url: str, target_url: str, role: str) -> Iterator[str]:
    """Where it is restored to; nothing is the role's afterwards."""
    del shop_url
    yield target_url
    execute(target_url, [f"DROP OWNED BY {role} CASCADE"])


def test_everything_comes_back_and_nothing_is_lost_unnoticed(
    outputs: StackOutputs,
    stores: dict[str, Store],
    key: BackupKey,
    shop_url: str,
    restored_url: str,
    role: str,
) -> None:
    manifest = back_up(outputs, stores, shop_url).manifest
    assert manifest.definitions["policies"].objects == 1
    data_key = unwrap_data_key(key, manifest)
    restored = restore(stores["primary"], manifest, data_key, restored_url)
    assert restored.left_out == ()
    with connect(shop_url) as before, connect(restored_url) as after:
        expected = read_definitions(before)
        assert compare_definitions(expected, read_definitions(after)) == []
        database = after.info.dbname
    for loss, told in LOSSES.items():
        with connect(restored_url) as connection:
            connection.execute(loss.format(role=role, database=database).encode())
            differences = compare_definitions(expected, read_definitions(connection))
            connection.rollback()
        wanted = told.format(role=role)
        assert any(found.startswith(wanted) for found in differences), (loss, differences)
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert (evidence.error, evidence.notes) == (None, ())


def test_what_a_server_writes_for_itself_is_no_difference(shop_url: str) -> None:
    """PostgreSQL 17.12 keeps a version with each column, among the options that people set.

    Written as that server does: the one here may be older. A drill on a newer one: tests/node.
    """
    execute(shop_url, ["ALTER TABLE shop.orders ALTER kind SET (n_distinct=5)"])
    with connect(shop_url) as connection:
        expected = read_definitions(connection)
    written = "UPDATE pg_attribute SET attoptions = '{%s}' WHERE attrelid = 'shop.orders'::regclass AND %s"
    only, beside = ("pg_attver=7", "attname <> 'kind'"), ("pg_attver=7,n_distinct=5", "attname = 'kind'")
    execute(shop_url, [written % only, written % beside])
    with connect(shop_url) as connection:
        assert compare_definitions(expected, read_definitions(connection)) == []
    # As a backup has it that was taken before that was left out.
    columns = expected.kinds["columns"]
    without, with_own = (
        '"options": null',
        ('"options": ["pg_attver=7"]', '"options": ["pg_attver=7", "n_dist'),
    )
    former = {
        name: facts.replace(without, with_own[0]).replace('"options": ["n_dist', with_own[1])
        for name, facts in columns.items()
    }
    kept = expected.model_copy(update={"kinds": expected.kinds | {"columns": former}})
    assert compare_definitions(kept, expected) == []
    execute(shop_url, [written % ("pg_attver=8", "attname = 'kind'")])
    with connect(shop_url) as connection:
        assert compare_definitions(kept, read_definitions(connection)) == [
            "columns: shop.orders.kind is another"
        ]


def test_sequences_that_move_during_the_dump_are_no_difference(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, filled_url: str, target_url: str
) -> None:
    def advance(_name: str, _size: int) -> None:
        execute(filled_url, ["SELECT nextval('shop.\"Orders_id_seq\"')"])

    manifest = run_backup(outputs, stores, filled_url, report=advance).manifest
    assert restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url).rows == 20_104


@pytest.mark.parametrize(
    ("sequence", "allowed", "refused"),
    [
        (Sequence(before=5, after=5, ascending=True), {5}, {4, 6, 1}),
        (Sequence(before=5, after=9, ascending=True), {5, 7, 9}, {4, 10}),
        (Sequence(before=-5, after=-9, ascending=False), {-5, -7, -9}, {-4, -10}),
        (Sequence(before=9, after=1, ascending=True), {1, 100}, set[int]()),
    ],
    ids=["still", "upwards", "downwards", "around"],
)
def test_a_sequence_lies_between_its_values_before_and_after(
    sequence: Sequence, allowed: set[int], refused: set[int]
) -> None:
    assert {value for value in allowed | refused if sequence.allows(value)} == allowed
