"""A backup lies whole and locked in both stores and comes back equal."""

from __future__ import annotations

import json

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from runtime.backup.catalogue import read_catalogue, unwrap_data_key
from runtime.backup.cli import app
from runtime.backup.drill import drill, keep_evidence
from runtime.backup.exporter import Exporter
from runtime.backup.keys import BackupKey
from runtime.backup.prune import prune
from runtime.backup.restore import restore
from runtime.backup.run import BackupResult, run_backup
from runtime.backup.stores import Store
from runtime.backup.verify import Check, verify
from runtime.contract import StackOutputs
from runtime.errors import BadInput

Stores = dict[str, Store]


def back_up(outputs: StackOutputs, stores: Stores, url: str) -> BackupResult:
    return run_backup(outputs, stores, url)


def checks_of(stores: Stores, key: BackupKey, backup_id: str | None = None) -> list[Check]:
    catalogue = read_catalogue(stores)
    return verify(stores, catalogue, catalogue.find(backup_id), key)


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
    assert manifest.tables["shop.Orders"].rows == 20_000
    assert manifest.tables["public.days_2026"].rows == 100
    assert manifest.tables["public.nothing"].rows == 0
    assert manifest.tables["large objects"].rows == 2
    assert manifest.server_version.startswith("17")
    assert wrong(checks_of(stores, key)) == set()
    primary = b"".join(stores["primary"].read(manifest.objects["database.dump"].key))
    assert primary == b"".join(stores["secondary"].read(manifest.objects["database.dump"].key))
    assert len(primary) == manifest.objects["database.dump"].size
    assert b"PGDMP" not in primary, "the dump is encrypted"


def test_it_comes_back_equal(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    restored = restore(stores["secondary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert (restored.tables, restored.rows) == (4, 20_102)
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
    assert restored.rows == 20_102


def test_restore_refuses_a_target_that_is_not_empty(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    data_key = unwrap_data_key(key, manifest)
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE nothing (precious text)")
    with pytest.raises(BadInput, match="not empty"):
        restore(stores["primary"], manifest, data_key, target_url)
    assert restore(stores["primary"], manifest, data_key, target_url, replace=True).rows == 20_102


def test_manifests_form_a_chain(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    made = [back_up(outputs, stores, filled_url).manifest for _ in range(3)]
    assert [manifest.sequence for manifest in made] == [1, 2, 3]
    assert [manifest.previous for manifest in made] == [(), (made[0].key(),), (made[1].key(),)]
    stores["secondary"].delete(made[1].key())
    catalogue = read_catalogue({"secondary": stores["secondary"]})
    checks = verify({"secondary": stores["secondary"]}, catalogue, catalogue.find(made[2].id), key)
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
    assert wrong(checks_of(stores, key)) == set()


def test_the_drill_proves_both_stores_and_leaves_evidence(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    results = drill(stores, key)
    assert [(result.store, result.backup, result.error) for result in results] == [
        ("primary", manifest.id, None),
        ("secondary", manifest.id, None),
    ]
    assert all(result.rows == 20_102 and result.recovery_time_seconds > 0 for result in results)
    assert keep_evidence(stores, results) == []
    registry = CollectorRegistry()
    Exporter(stores, registry).look()
    for store in stores:
        labels = {"store": store}
        assert registry.get_sample_value("backup_last_success_timestamp_seconds", labels) == pytest.approx(
            manifest.finished_at.timestamp()
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
    keep_evidence(only_gcs, drill(only_gcs, key, made[1].id))
    monkeypatch.setattr("runtime.backup.prune._age_days", lambda *_: 1000.0)
    outcomes = {result.backup: result.outcome for result in prune(only_gcs, keep_days=1, keep_last=1)}
    assert outcomes == {made[0].id: "removed", made[2].id: "removed"}
    assert [entry.key.id for entry in read_catalogue(only_gcs).entries] == [made[1].id, made[3].id]
    assert not stores["secondary"].list(f"backups/{made[0].id}/")
    locked = prune({"primary": stores["primary"]}, keep_days=1, keep_last=1)
    assert len(locked) == 3
    assert all(result.outcome.startswith("kept: locked until") for result in locked)
    assert len(read_catalogue({"primary": stores["primary"]}).entries) == 4


@pytest.mark.usefixtures("outputs_file")
def test_the_commands_from_end_to_end(
    filled_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    monkeypatch.setenv("DATABASE_URL", filled_url)
    taken = runner.invoke(app, ["run", "--json"])
    assert taken.exception is None
    backup = json.loads(taken.stdout)
    assert backup["rows"] == 20_102
    [listed] = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert (listed["backup"], listed["stores"]) == (backup["backup"], ["primary", "secondary"])
    checks = json.loads(runner.invoke(app, ["verify", "--json"]).stdout)
    assert all(check["ok"] for check in checks)
    restored = runner.invoke(app, ["restore", "--to", target_url, "--from", "secondary", "--json"])
    assert restored.exception is None
    assert json.loads(restored.stdout)["rows"] == 20_102
    assert runner.invoke(app, ["complete"]).stdout.strip() == "nothing to complete"
    again = runner.invoke(app, ["restore", "--to", target_url])
    assert isinstance(again.exception, BadInput)
