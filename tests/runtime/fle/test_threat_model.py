"""What docs/field-encryption-threats.md says that a database role can't do, tried and refused."""

from __future__ import annotations

import psycopg
import pytest

from kilo.fle import FieldCipher, errors
from kilo.fle.keytable import DATA

from .conftest import Stage, url_of

REFUSED = [
    ("kilo_ingest", "INSERT INTO fle_wraps VALUES (1, 'aws', 'mine', '\\x00')"),
    ("kilo_ingest", "UPDATE fle_wraps SET wrapped = '\\x00'"),
    ("kilo_ingest", "DELETE FROM fle_wraps"),
    ("kilo_ingest", "INSERT INTO fle_keys SELECT * FROM fle_keys"),
    ("kilo_ingest", "UPDATE fle_keys SET state = 'retired'"),
    ("kilo_ingest", "UPDATE fle_keys SET digest = NULL"),
    ("kilo_ingest", "UPDATE fle_keys SET messages_reserved = message_limit"),
    ("kilo_ingest", "SELECT nextval('fle_keys_id')"),
    ("kilo_ingest", "UPDATE fle_tenants SET minimum_version = 9"),
    ("kilo_ingest", "DELETE FROM fle_scope"),
    ("kilo_ingest", "INSERT INTO fle_audit VALUES (9, '', decode(repeat('00', 32), 'hex'))"),
    ("kilo_ingest", "INSERT INTO fle_rotations (plan_hash) VALUES (repeat('0', 64))"),
    ("kilo_consumer", "UPDATE fle_keys SET messages_reserved = 1"),
    ("kilo_consumer", "INSERT INTO fle_wraps VALUES (1, 'aws', 'mine', '\\x00')"),
    ("kilo_consumer", "DELETE FROM fle_wraps"),
    ("kilo_consumer", "INSERT INTO fle_scope (tenant, field) VALUES ('gold', 'x')"),
    ("kilo_worker", "SELECT FROM fle_wraps"),
    ("kilo_worker", "SELECT FROM fle_keys"),
    ("kilo_cdc", "SELECT FROM fle_wraps"),
    ("kilo_keymaker", "UPDATE fle_wraps SET wrapped = '\\x00'"),
    ("kilo_keymaker", "DELETE FROM fle_wraps"),
    ("kilo_keymaker", "UPDATE fle_keys SET state = 'retired'"),
    (
        "kilo_keymaker",
        "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest)"
        " VALUES (9, 'gold', 'field-data', 2, 9, 'retiring', 1, sha256('x'))",
    ),
    ("kilo_keymaker", "DELETE FROM fle_audit"),
    ("kilo_keymaker", "SELECT FROM events"),
    ("kilo_rotator", "UPDATE fle_wraps SET wrapped = '\\x00'"),
    ("kilo_rotator", "DELETE FROM fle_keys"),
    ("kilo_rotator", "DELETE FROM fle_audit"),
    ("kilo_rotator", "DELETE FROM fle_tenants"),
    ("kilo_rotator", "SELECT fle_limit_role('kilo_rotator', '{}')"),
    ("kilo_rotator", "DELETE FROM fle_role_tenants"),
    ("kilo_rotator", "DELETE FROM fle_rotation_approvals"),
    ("kilo_auditor", "SELECT FROM fle_wraps"),
    ("kilo_destroyer", "SELECT wrapped FROM fle_wraps"),
]


def test_a_role_is_refused_what_is_not_its_work(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    stage.sql("INSERT INTO fle_tenants (tenant) VALUES ('gold')")
    for role, statement in REFUSED:
        with psycopg.connect(url_of(stage, role)) as connection:
            try:
                connection.execute(statement.encode())
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException):
                continue
        pytest.fail(f"{role} may {statement}")


def as_role(stage: Stage, role: str) -> FieldCipher:
    return FieldCipher.from_outputs(stage.outputs, url_of(stage, role), table="customers", principal=role)


def test_ingest_encrypts_with_the_key_that_the_key_maker_made_and_makes_none(stage: Stage) -> None:
    with pytest.raises(errors.KeyTableDenied, match="kilo fle keys make"):
        as_role(stage, "kilo_ingest").encrypt("gold", "email", 1, "x")
    as_role(stage, "kilo_keymaker").keyring.create("gold", DATA, "active")
    value = as_role(stage, "kilo_ingest").encrypt("gold", "email", 1, "x")
    assert as_role(stage, "kilo_consumer").decrypt("gold", "email", 1, value) == "x"


def test_wrapping_again_and_shredding_are_the_rotator_s(stage: Stage) -> None:
    value = stage.cipher().encrypt("gold", "email", 1, "x")
    assert as_role(stage, "kilo_rotator").keyring.rewrap("gold") == [1]
    assert stage.cipher().decrypt("gold", "email", 1, value) == "x"
    with pytest.raises(errors.KeyTableDenied):
        as_role(stage, "kilo_keymaker").keyring.rewrap("gold")


def test_guards_ask_no_temporary_table(stage: Stage) -> None:
    stage.sql("INSERT INTO fle_tenants (tenant, shredded_at) VALUES ('gold', now())")
    with psycopg.connect(url_of(stage, "kilo_keymaker")) as connection:
        connection.execute("CREATE TEMPORARY TABLE fle_tenants (tenant text, shredded_at timestamptz)")
        connection.execute("SET search_path = pg_temp, public")
        with pytest.raises(psycopg.errors.RaiseException, match="was shredded"):
            connection.execute(
                "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest)"
                " VALUES (9, 'gold', 'field-data', 2, 1, 'active', 1, sha256('x'))"
            )


def test_a_role_for_some_tenants_sees_no_other_s_keys_and_backups_go_on(stage: Stage) -> None:
    for tenant in ("gold", "second"):
        stage.cipher().encrypt(tenant, "email", 1, "x")
    stage.sql("SELECT fle_limit_role('kilo_ingest', '{gold}')")
    limited = as_role(stage, "kilo_ingest")
    assert limited.decrypt("gold", "email", 1, limited.encrypt("gold", "email", 1, "x")) == "x"
    assert limited.keyring.table.read("second").keys == ()
    with psycopg.connect(url_of(stage, "kilo_ingest")) as connection:
        assert connection.execute("SELECT DISTINCT key_id FROM fle_wraps").fetchall() == [(1,)]
        # A table of its own of that name, which comes first in its search path, is not asked.
        connection.execute("CREATE TEMPORARY TABLE fle_role_tenants (role name, tenant text)")
        connection.execute("SET search_path = pg_temp, public")
        assert connection.execute("SELECT DISTINCT key_id FROM fle_wraps").fetchall() == [(1,)]
        assert (
            connection.execute("UPDATE fle_keys SET messages_reserved = messages_reserved + 1").rowcount == 1
        )
    with psycopg.connect(url_of(stage, "kilo_consumer")) as connection:
        assert connection.execute("SELECT count(*) FROM fle_keys").fetchone() == (2,)
    with psycopg.connect(url_of(stage, "kilo_backup")) as connection:
        assert connection.execute("SELECT count(*) FROM fle_wraps").fetchone() == (2,)
