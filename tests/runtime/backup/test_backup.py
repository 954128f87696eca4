"""A backup lies whole and locked in both stores and comes back equal."""

from __future__ import annotations

import boto3
import psycopg
import pytest
from prometheus_client import CollectorRegistry

from kilo.backup.catalogue import read_catalogue, unwrap_data_key
from kilo.backup.database import connect, list_contents
from kilo.backup.drill import drill, keep_evidence
from kilo.backup.exporter import Exporter
from kilo.backup.keys import BackupKey
from kilo.backup.programs import environment_of
from kilo.backup.prune import prune
from kilo.backup.restore import restore
from kilo.backup.run import BackupResult, run_backup
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.backup.verify import Check, Verification
from kilo.contract import StackOutputs
from kilo.database.roles import apply_roles
from kilo.errors import BadInput, CheckFailed
from tests.runtime.backup.conftest import REGION

Stores = dict[str, Store]


def back_up(outputs: StackOutputs, stores: Stores, url: str) -> BackupResult:
    return run_backup(outputs, stores, url)


def checks_of(
    outputs: StackOutputs, stores: Stores, key: BackupKey, backup_id: str | None = None
) -> list[Check]:
    catalogue = read_catalogue(stores)
    return Verification(outputs.backups, stores, catalogue, key).check(catalogue.find(backup_id))


def wrong(checks: list[Check]) -> set[tuple[str, str]]:
    return {(check.store, check.subject) for check in checks if check.error is not None}


def test_both_stores_have_the_same_backup(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    result = back_up(outputs, stores, filled_url)
    assert result.whole
    assert {store.store: store.lock for store in result.stores} == {
        "primary": "proven",
        "secondary": "unproven",
    }
    manifest = result.manifest
    assert manifest.tables['shop."Orders"'].rows == 20_000
    assert manifest.tables["public.days_2026"].rows == 100
    assert manifest.tables["public.nothing"].rows == 0
    assert manifest.tables["large objects"].rows == 2
    assert {state.hashed for state in manifest.tables.values()} == {"values"}
    assert manifest.server_version.startswith("17")
    assert wrong(checks_of(outputs, stores, key)) == set()
    primary = b"".join(stores["primary"].read(manifest.objects["database.dump"].key))
    assert primary == b"".join(stores["secondary"].read(manifest.objects["database.dump"].key))
    assert len(primary) == manifest.objects["database.dump"].size
    assert b"PGDMP" not in primary, "the dump is encrypted"


def test_it_comes_back_equal(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    restored = restore(stores["secondary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert (restored.tables, restored.rows) == (5, 20_104)
    query = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop.\"Orders\" t"
    with psycopg.connect(filled_url) as before, psycopg.connect(target_url) as after:
        assert before.execute(query).fetchone() == after.execute(query).fetchone()
        assert after.execute("SELECT nextval('shop.\"Orders_id_seq\"')").fetchone() == (20_001,)


def test_the_snapshot_is_of_one_moment(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    """Rows that are written while the dump runs are in neither the dump nor the counts."""
    writer = psycopg.connect(filled_url, autocommit=True)

    def write(_name: str, _size: int) -> None:
        writer.execute("INSERT INTO nothing VALUES (1)")
        writer.execute('DELETE FROM shop."Orders" WHERE id = (SELECT min(id) FROM shop."Orders")')

    manifest = run_backup(outputs, stores, filled_url, report=write).manifest
    writer.close()
    assert manifest.tables["public.nothing"].rows == 0
    restored = restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert restored.rows == 20_104


def test_restore_refuses_a_target_that_is_not_empty(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    data_key = unwrap_data_key(key, manifest)
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE nothing (precious text)")
    with pytest.raises(BadInput, match="not empty"):
        restore(stores["primary"], manifest, data_key, target_url)
    assert restore(stores["primary"], manifest, data_key, target_url, replace=True).rows == 20_104


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW something AS SELECT 1",
        "CREATE FUNCTION something() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE something AS ENUM ('a')",
        "CREATE SEQUENCE something",
        "CREATE SCHEMA something",
        "CREATE EXTENSION hstore",
        "SELECT lo_from_bytea(0, 'something')",
        "CREATE PUBLICATION something",
        "CREATE CAST (point AS text) WITH INOUT",
        "CREATE TYPE something AS (a int)",
        "CREATE OPERATOR CLASS something FOR TYPE int USING btree AS STORAGE int",
        "CREATE TEXT SEARCH DICTIONARY something (TEMPLATE = simple)",
        "CREATE FOREIGN DATA WRAPPER something",
        "CREATE SUBSCRIPTION something CONNECTION 'host=none.invalid' PUBLICATION p WITH (connect = false,"
        " slot_name = NONE, enabled = false)",
    ],
)
def test_whatever_is_in_a_database_makes_it_not_empty(empty_database_url: str, statement: str) -> None:
    with connect(empty_database_url, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        assert list_contents(connection) == []
        connection.execute(statement.encode())
        found = " ".join(list_contents(connection))
        if "SUBSCRIPTION" in statement:
            connection.execute("DROP SUBSCRIPTION something")
    assert any(word in found for word in ("hstore", "something", "large object", "cast"))


def test_replacing_refuses_what_the_backup_would_leave_as_it_is(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE precious (x int)")
    with pytest.raises(BadInput, match=r"does not: public\.precious"):
        restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url, replace=True)


def test_the_backup_role_dumps_the_platforms_database(
    outputs: StackOutputs, stores: Stores, key: BackupKey, database_url: str, target_url: str
) -> None:
    """With the rights of kilo_backup alone."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_roles(connection, {"kilo_backup": "of-the-test"})
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " SELECT 'acme', 'order', i::text, 'made', '{}', i::text FROM generate_series(1, 50) i"
        )
    place = database_url.rpartition("@")[2]
    result = back_up(outputs, stores, f"postgresql://kilo_backup:of-the-test@{place}")
    assert result.whole
    assert result.manifest.schema_version
    assert sum(state.rows for state in result.manifest.tables.values()) >= 50
    restored = restore(
        stores["secondary"], result.manifest, unwrap_data_key(key, result.manifest), target_url
    )
    assert restored.tables == len(result.manifest.tables)


def test_rows_that_the_role_may_not_see_are_no_backup(
    outputs: StackOutputs, stores: Stores, filled_url: str
) -> None:
    with psycopg.connect(filled_url, autocommit=True) as connection:
        apply_roles(connection, {"kilo_backup": "of-the-test"})
        connection.execute("GRANT pg_read_all_data TO kilo_backup")
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        connection.execute("ALTER TABLE nothing ENABLE ROW LEVEL SECURITY")
    place = filled_url.rpartition("@")[2]
    with pytest.raises(CheckFailed, match="row-level security"):
        back_up(outputs, stores, f"postgresql://kilo_backup:of-the-test@{place}")


def test_roles_that_serve_some_tenants_are_no_hindrance_and_still_limited_after_a_restore(
    outputs: StackOutputs, stores: Stores, key: BackupKey, database_url: str, target_url: str
) -> None:
    """As kilo_backup, under the row-level security of ``fle_limit_role``."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_roles(connection, {"kilo_backup": "of-the-test"})
        for number, tenant in enumerate(("acme", "birch"), 1):
            connection.execute(
                "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest)"
                " VALUES (%s, %s, 'field-data', 2, 1, 'active', 1, sha256(%s))",
                (number, tenant, tenant.encode()),
            )
            connection.execute("INSERT INTO fle_wraps VALUES (%s, 'aws', 'key', '\\x00')", (number,))
        place = database_url.rpartition("@")[2]
        url = f"postgresql://kilo_backup:of-the-test@{place}"
        connection.execute("SELECT fle_limit_role('kilo_ingest', '{acme}')")
        # Managed servers let nobody give it.
        query = "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'kilo_backup'"
        assert connection.execute(query).fetchone() == (False,)
        result = back_up(outputs, stores, url)
        assert result.whole
        manifest = result.manifest
        for hide, show in [
            (
                "CREATE POLICY hiding ON fle_wraps AS RESTRICTIVE TO kilo_worker USING (true)",
                "DROP POLICY hiding ON fle_wraps",
            ),
            (
                "ALTER POLICY fle_backup ON fle_wraps USING (key_id > 0)",
                "ALTER POLICY fle_backup ON fle_wraps USING (true)",
            ),
            (
                "ALTER POLICY fle_backup ON fle_wraps TO pg_read_all_data",
                "ALTER POLICY fle_backup ON fle_wraps TO kilo_backup",
            ),
        ]:
            connection.execute(hide.encode())
            with pytest.raises(CheckFailed, match=r"may hide rows of public\.fle_wraps from kilo_backup"):
                back_up(outputs, stores, url)
            connection.execute(show.encode())
    assert manifest.tables["public.fle_wraps"].rows == 2
    restore(stores["secondary"], manifest, unwrap_data_key(key, manifest), target_url)
    with psycopg.connect(target_url) as connection:
        assert connection.execute("SELECT count(*) FROM fle_wraps").fetchone() == (2,)
        connection.execute("SET ROLE kilo_ingest")
        assert connection.execute("SELECT key_id FROM fle_wraps").fetchall() == [(1,)]


def test_the_connection_is_handed_on_whole() -> None:
    url = "postgresql://u:p%20w@db.example:6432/kilo?sslmode=verify-full&channel_binding=require&options=-cx%3D1"
    assert environment_of(url) == {
        "PGHOST": "db.example",
        "PGPORT": "6432",
        "PGDATABASE": "kilo",
        "PGUSER": "u",
        "PGPASSWORD": "p w",
        "PGSSLMODE": "verify-full",
        "PGCHANNELBINDING": "require",
        "PGOPTIONS": "-cx=1",
    }


def test_the_key_of_a_lost_region_is_taken_from_its_replica(
    outputs: StackOutputs, stores: Stores, filled_url: str, target_url: str
) -> None:
    kms = boto3.client("kms")
    arn = kms.create_key(MultiRegion=True)["KeyMetadata"]["Arn"]
    elsewhere = kms.replicate_key(KeyId=arn.rpartition("/")[2], ReplicaRegion="eu-west-1")
    own = outputs.backups.encryption_key.model_copy(update={"key": arn})
    replica = own.model_copy(update={"key": elsewhere["ReplicaKeyMetadata"]["Arn"]})
    backups = outputs.backups.model_copy(update={"encryption_key": own, "encryption_key_replica": replica})
    manifest = back_up(outputs.model_copy(update={"backups": backups}), stores, filled_url).manifest
    assert unwrap_data_key(BackupKey(backups), manifest)
    # The key's own region does not know it any more.
    lost = backups.model_copy(
        update={"encryption_key": own.model_copy(update={"key": arn.replace(REGION, "us-east-1")})}
    )
    with pytest.raises(CheckFailed, match="failed"):
        unwrap_data_key(BackupKey(lost.model_copy(update={"encryption_key_replica": None})), manifest)
    data_key = unwrap_data_key(BackupKey(lost), manifest)
    assert restore(stores["secondary"], manifest, data_key, target_url).rows == 20_104


def test_manifests_form_a_chain(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    made = [back_up(outputs, stores, filled_url).manifest for _ in range(3)]
    assert [manifest.sequence for manifest in made] == [1, 2, 3]
    assert [manifest.previous for manifest in made] == [(), (made[0].key(),), (made[1].key(),)]
    stores["secondary"].delete(made[1].key())
    checks = checks_of(outputs, {"secondary": stores["secondary"]}, key, made[2].id)
    assert wrong(checks) == {("secondary", "chain")}


def test_two_runs_at_once_fork_the_chain_and_the_next_joins_it(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    meanwhile: list[BackupResult] = []

    def interfere(_name: str, _size: int) -> None:
        if not meanwhile:
            meanwhile.append(run_backup(outputs, stores, filled_url))

    outer = run_backup(outputs, stores, filled_url, report=interfere)
    assert (meanwhile[0].manifest.sequence, outer.manifest.sequence) == (1, 1)
    joined = back_up(outputs, stores, filled_url).manifest
    assert joined.sequence == 2
    assert set(joined.previous) == {meanwhile[0].manifest.key(), outer.manifest.key()}
    assert wrong(checks_of(outputs, stores, key)) == set()


def test_the_drill_proves_both_stores_and_leaves_evidence(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    results = drill(stores, Verifier(outputs.backups), key)
    assert [(result.store, result.backup, result.error) for result in results] == [
        ("primary", manifest.id, None),
        ("secondary", manifest.id, None),
    ]
    assert all(result.rows == 20_104 and result.recovery_time_seconds > 0 for result in results)
    assert keep_evidence(stores, results) == []
    registry = CollectorRegistry()
    Exporter(stores, Verifier(outputs.backups), registry).look()
    for store in stores:
        labels = {"store": store}
        assert registry.get_sample_value("backup_last_success_timestamp_seconds", labels) == pytest.approx(
            manifest.finished_at.timestamp(), abs=5
        )
        assert registry.get_sample_value("backup_size_bytes", labels) == manifest.size
        assert registry.get_sample_value("backup_last_failure_timestamp_seconds", labels) == 0
        recovery = registry.get_sample_value("backup_drill_recovery_time_seconds", labels)
        assert recovery == next(result.recovery_time_seconds for result in results if result.store == store)
        assert registry.get_sample_value("backup_last_verified_timestamp_seconds", labels)


def test_pruning_spares_what_is_locked_the_newest_and_the_last_proven(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [back_up(outputs, stores, filled_url).manifest for _ in range(4)]
    only_gcs = {"secondary": stores["secondary"]}
    keep_evidence(only_gcs, drill(only_gcs, Verifier(outputs.backups), key, made[1].id))
    monkeypatch.setattr("kilo.backup.prune._age_days", lambda *_: 1000.0)
    outcomes = {
        result.backup: result.outcome
        for result in prune(only_gcs, Verifier(outputs.backups), keep_days=1, keep_last=1)
    }
    assert outcomes == {made[0].id: "removed", made[2].id: "removed"}
    assert [entry.key.id for entry in read_catalogue(only_gcs).entries] == [made[1].id, made[3].id]
    assert not stores["secondary"].list(f"backups/{made[0].id}/")
    locked = prune({"primary": stores["primary"]}, Verifier(outputs.backups), keep_days=1, keep_last=1)
    assert len(locked) == 3
    assert all(result.outcome.startswith("kept: locked until") for result in locked)
    assert len(read_catalogue({"primary": stores["primary"]}).entries) == 4
