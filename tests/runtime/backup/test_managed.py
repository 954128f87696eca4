"""Restores between servers whose roles differ: managed ones, where ``postgres`` is no superuser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kilo.backup.catalogue import unwrap_data_key
from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import Locale
from kilo.backup.restore import restore
from kilo.backup.scratch import scratch_database
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from tests.runtime.backup.test_backup import back_up
from tests.runtime.backup.test_values import execute

C = Locale(encoding="UTF8", provider="libc", collate="C", ctype="C")
SOURCE = [
    "CREATE ROLE postgres LOGIN CREATEDB CREATEROLE",
    "GRANT pg_read_all_data TO postgres WITH ADMIN OPTION",
    "CREATE ROLE app NOLOGIN",
    "CREATE ROLE reader LOGIN CONNECTION LIMIT 3",
    "GRANT reader TO app",
    "ALTER ROLE reader SET work_mem = '8MB'",
    "GRANT app TO postgres",
    "CREATE EXTENSION citext",
    "COMMENT ON EXTENSION citext IS 'of the provider'",
    "GRANT CREATE ON SCHEMA public TO app",
    "CREATE TABLE orders (id serial PRIMARY KEY, name citext)",
    "INSERT INTO orders (name) VALUES ('a'), ('B')",
    "ALTER TABLE orders OWNER TO app",
    "GRANT SELECT ON orders TO reader",
    "CREATE FUNCTION hidden() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    "REVOKE EXECUTE ON FUNCTION hidden() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION hidden() TO reader",
    "CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$",
    "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION told()",
]


@pytest.fixture
def managed_url(cloud: None) -> Iterator[str]:
    """A database as RDS and Cloud SQL have it: the first superuser is the provider's."""
    del cloud
    with scratch_database("shop", "rdsadmin", C) as scratch:
        yield scratch.url


def as_role(url: str, role: str) -> str:
    return url.replace("rdsadmin", role, 1)


def test_a_managed_servers_backup_is_drilled_as_whom_it_was_made_by(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, managed_url: str
) -> None:
    execute(managed_url, [*SOURCE, "DROP EVENT TRIGGER watch", "ALTER FUNCTION told() OWNER TO postgres"])
    # As the provider's customer takes it, who reads all rows but is no superuser.
    manifest = back_up(outputs, stores, as_role(managed_url, "postgres")).manifest
    assert (manifest.bootstrap_role, manifest.database) == ("rdsadmin", "shop")
    [evidence] = drill({"secondary": stores["secondary"]}, Verifier(outputs.backups), key)
    assert (evidence.error, evidence.notes, evidence.rows) == (None, (), 2)


@pytest.mark.parametrize("createrole", [True, False], ids=["may create roles", "may not"])
def test_who_is_no_superuser_restores_what_it_may_and_is_told_the_rest(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, managed_url: str, createrole: bool
) -> None:
    execute(managed_url, SOURCE)
    manifest = back_up(outputs, stores, managed_url).manifest
    with scratch_database("target", "rdsadmin", C) as scratch:
        customer = f"CREATE ROLE customer LOGIN {'CREATEROLE' if createrole else ''}"
        given = ["ALTER DATABASE target OWNER TO customer", "CREATE EXTENSION citext"]
        execute(scratch.url, [customer, *given, *(["CREATE ROLE reader"] if not createrole else [])])
        url = as_role(scratch.url, "customer")
        restored = restore(stores["primary"], manifest, unwrap_data_key(key, manifest), url)
        told = "\n".join(restored.left_out)
        assert "of superusers: EVENT TRIGGER - watch" in told
        assert "of superusers: COMMENT - EXTENSION citext" in told
        with psycopg.connect(scratch.url) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (2,)
            reads = "SELECT has_table_privilege('reader', 'orders', 'SELECT')"
            assert connection.execute(reads.encode()).fetchone() == (True,)
            calls = "SELECT has_function_privilege('reader', 'hidden()', 'EXECUTE')"
            assert connection.execute(calls.encode()).fetchone() == (True,)
            # What was closed to everybody is not open now.
            stranger = "SELECT has_function_privilege('pg_monitor', 'hidden()', 'EXECUTE')"
            assert connection.execute(stranger).fetchone() == (False,)
            owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'"
            [owned_by] = connection.execute(owner).fetchall()
            roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        if createrole:
            assert {"app", "reader", "postgres"} <= roles
            assert "role postgres is without" in told
            assert owned_by == ("app",)
        else:
            assert "role app: permission denied to create role" in told
            assert "role app is missing: " in told
            assert owned_by == ("customer",)


DEFAULTS = [
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.orders (id int)",
    'CREATE ROLE "the app"',
    "CREATE ROLE reader",
    'ALTER DEFAULT PRIVILEGES FOR ROLE "the app" IN SCHEMA shop GRANT SELECT ON TABLES TO reader',
    'ALTER DEFAULT PRIVILEGES FOR ROLE "the app" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC',
    'ALTER DEFAULT PRIVILEGES FOR ROLE "the app" GRANT USAGE ON SEQUENCES TO reader WITH GRANT OPTION',
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "CREATE PUBLICATION schemas FOR TABLES IN SCHEMA shop",
    "CREATE PUBLICATION chosen FOR TABLE shop.orders",
]


DEFAULT_PRIVILEGES = """
SELECT d.defaclrole::regrole::text, coalesce(n.nspname, ''), d.defaclobjtype::text, a.grantee::regrole::text,
  a.privilege_type, a.is_grantable
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a"""


def test_default_privileges_and_publications_come_back_as_far_as_a_role_may(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, managed_url: str
) -> None:
    execute(managed_url, DEFAULTS)
    manifest = back_up(outputs, stores, managed_url).manifest
    with scratch_database("target", "rdsadmin", C) as scratch:
        execute(
            scratch.url, ["CREATE ROLE customer LOGIN CREATEROLE", "ALTER DATABASE target OWNER TO customer"]
        )
        url = as_role(scratch.url, "customer")
        restored = restore(stores["primary"], manifest, unwrap_data_key(key, manifest), url)
        of_superusers = [each for each in restored.left_out if each.startswith("of superusers: ")]
        assert len(of_superusers) == 2
        assert of_superusers[0].startswith("of superusers: PUBLICATION - everything ")
        assert of_superusers[1].startswith("of superusers: PUBLICATION TABLES IN SCHEMA shop schemas ")
        assert not [each for each in restored.left_out if "default privileges" in each]
        with psycopg.connect(scratch.url) as there, psycopg.connect(managed_url) as here:
            found, expected = (
                set(connection.execute(DEFAULT_PRIVILEGES).fetchall()) for connection in (there, here)
            )
            names = "SELECT pubname FROM pg_publication ORDER BY 1"
            assert there.execute(names).fetchall() == [("chosen",), ("schemas",)]
            published = "SELECT pubname, tablename FROM pg_publication_tables"
            assert there.execute(published).fetchall() == [("chosen", "orders")]
        assert found == expected
        assert ('"the app"', "shop", "r", "reader", "SELECT", False) in found


def test_an_extension_that_the_target_does_not_let_in_is_named(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, managed_url: str
) -> None:
    execute(managed_url, ["CREATE EXTENSION dblink", "CREATE TABLE t (x int)"])
    manifest = back_up(outputs, stores, managed_url).manifest
    with scratch_database("target", "rdsadmin", C) as scratch:
        execute(scratch.url, ["CREATE ROLE customer LOGIN", "ALTER DATABASE target OWNER TO customer"])
        with pytest.raises(CheckFailed, match='permission denied to create extension "dblink"'):
            restore(
                stores["primary"], manifest, unwrap_data_key(key, manifest), as_role(scratch.url, "customer")
            )


def test_tables_in_a_tablespace_are_drilled_without_it(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, managed_url: str
) -> None:
    with psycopg.connect(managed_url) as connection:
        [data] = connection.execute("SHOW data_directory").fetchone() or ("",)
    place = Path(data) / "place"
    execute(managed_url, [f"COPY (SELECT 1) TO PROGRAM 'mkdir {place}'"])
    execute(
        managed_url, [f"CREATE TABLESPACE fast LOCATION '{place}'", "CREATE TABLE t (x int) TABLESPACE fast"]
    )
    back_up(outputs, stores, managed_url)
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert evidence.error is None
    assert any("tablespace fast" in note for note in evidence.notes)
