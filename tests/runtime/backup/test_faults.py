"""What goes wrong while a backup is taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from kilo.backup import run as run_module
from kilo.backup.catalogue import read_catalogue
from kilo.backup.cli import app
from kilo.backup.drill import drill
from kilo.backup.exporter import Exporter
from kilo.backup.keys import BackupKey
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store, open_stores
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, KiloError, Unreachable
from sandbox.toolchain import path
from tests.patience import PATIENCE_SECONDS
from tests.runtime.backup.conftest import RUN
from tests.runtime.backup.test_backup import back_up, checks_of, wrong
from tests.runtime.registry.proxy import Fault, Proxy

Stores = dict[str, Store]


def uploads(method: str, url: str) -> bool:
    return method in {"POST", "PUT"} and "backups" in url


@pytest.mark.parametrize("down", ["primary", "secondary"])
def test_one_store_down_does_not_lose_the_other(
    s3_proxy: Proxy, gcs_proxy: Proxy, outputs: StackOutputs, key: BackupKey, filled_url: str, down: str
) -> None:
    up = "secondary" if down == "primary" else "primary"
    stores = open_stores(outputs.backups)
    proxy = s3_proxy if down == "primary" else gcs_proxy
    # Denied rather than 5xx: the libraries would retry that for minutes.
    proxy.rule = lambda method, url: Fault(status=403) if uploads(method, url) else None
    result = back_up(outputs, stores, filled_url)
    assert {store.store: store.error is None for store in result.stores} == {down: False, up: True}
    assert [entry.stores for entry in read_catalogue(stores).entries] == [(up,)]
    proxy.rule = lambda _method, _url: None
    run_module.complete(outputs, stores[up], down, stores[down], result.manifest)
    assert wrong(checks_of(outputs, stores, key)) == set()


@pytest.mark.usefixtures("outputs_file")
def test_the_command_says_which_store_has_no_copy(
    gcs_proxy: Proxy, filled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs_proxy.rule = lambda method, url: Fault(status=403) if uploads(method, url) else None
    monkeypatch.setenv("DATABASE_URL", filled_url)
    outcome = CliRunner().invoke(app, ["run", "--json"])
    assert isinstance(outcome.exception, CheckFailed)
    assert "secondary: gs://" in str(outcome.exception)
    gcs_proxy.rule = lambda _method, _url: None
    completed = CliRunner().invoke(app, ["complete"])
    assert completed.exception is None
    assert "copied to gs://" in completed.stdout


def test_both_stores_down_is_a_failure(
    s3_proxy: Proxy, gcs_proxy: Proxy, outputs: StackOutputs, filled_url: str
) -> None:
    for proxy in (s3_proxy, gcs_proxy):
        proxy.rule = lambda method, url: Fault(status=403) if uploads(method, url) else None
    with pytest.raises(KiloError):
        back_up(outputs, open_stores(outputs.backups), filled_url)


def test_a_denied_key_stops_the_run_before_anything_is_written(
    outputs: StackOutputs, stores: Stores, filled_url: str
) -> None:
    gone = outputs.backups.encryption_key.key[:-4] + "dead"
    reference = outputs.backups.encryption_key.model_copy(update={"key": gone})
    changed = outputs.model_copy(
        update={"backups": outputs.backups.model_copy(update={"encryption_key": reference})}
    )
    with pytest.raises(CheckFailed, match="NotFoundException"):
        back_up(changed, stores, filled_url)
    assert_only_marked(stores)


def assert_only_marked(stores: Stores) -> None:
    """Nothing lies in the stores but that a run failed, without its words."""
    for store in stores.values():
        [mark] = store.list("")
        assert mark.key.startswith("failures/")
        assert json.loads(b"".join(store.read(mark.key)))["error"] == "CheckFailed"


@pytest.fixture
def pg_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a pg_dump in front of the real one, which it may call as $REAL."""

    def install(script: str) -> None:
        program = tmp_path / "pg_dump"
        program.write_text(f"#!/bin/sh\nREAL={path('postgres')}/pg_dump\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_a_dump_that_fails_is_never_a_backup(
    outputs: StackOutputs, stores: Stores, filled_url: str, pg_dump: Callable[[str], None]
) -> None:
    pg_dump('"$REAL" "$@" | head -c 100000; echo "server closed the connection" >&2; exit 1')
    with pytest.raises(CheckFailed, match="server closed the connection"):
        back_up(outputs, stores, filled_url)
    assert_only_marked(stores)
    registry = CollectorRegistry()
    Exporter(stores, Verifier(outputs.backups), registry).look()
    for store in stores:
        labels = {"store": store}
        failed = registry.get_sample_value("backup_last_failure_timestamp_seconds", labels)
        assert failed == pytest.approx(time.time(), abs=60)
        assert registry.get_sample_value("backup_last_success_timestamp_seconds", labels) == 0


def test_a_dump_that_is_cut_off_silently_fails_the_drill(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, pg_dump: Callable[[str], None]
) -> None:
    pg_dump('"$REAL" "$@" | head -c 100000')
    back_up(outputs, stores, filled_url)
    [result] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert result.error
    assert "pg_restore" in result.error


def test_a_dump_that_lacks_a_table_fails_the_drill(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, pg_dump: Callable[[str], None]
) -> None:
    """It restores without an error, and is still no backup."""
    pg_dump('exec "$REAL" "$@" --exclude-table-data=public.days_2026')
    back_up(outputs, stores, filled_url)
    [result] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert result.error
    assert "public.days_2026 has 0 rows instead of 100" in result.error


def test_killed_in_the_middle_there_is_no_backup_and_the_next_run_is_whole(
    s3_proxy: Proxy,
    outputs: StackOutputs,
    outputs_file: Path,
    key: BackupKey,
    filled_url: str,
) -> None:
    del outputs_file
    s3_proxy.rule = lambda method, url: Fault(delay_seconds=2) if "database.dump" in url else None
    process = subprocess.Popen(
        RUN,
        env=os.environ | {"DATABASE_URL": filled_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any("database.dump" in url for _, url in s3_proxy.asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stores = open_stores(outputs.backups)
    assert read_catalogue(stores).entries == []
    s3_proxy.rule = lambda _method, _url: None
    assert back_up(outputs, stores, filled_url).whole
    assert wrong(checks_of(outputs, stores, key)) == set()


def test_a_bucket_without_a_lock_is_not_taken_for_locked(outputs: StackOutputs, filled_url: str) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="unlocked", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    primary = outputs.backups.primary.model_copy(update={"bucket": "unlocked"})
    changed = outputs.model_copy(update={"backups": outputs.backups.model_copy(update={"primary": primary})})
    result = back_up(changed, open_stores(changed.backups), filled_url)
    assert [store.store for store in result.stores if store.error is not None] == ["primary"]


def test_a_lock_that_is_too_short_is_reported(outputs: StackOutputs, filled_url: str) -> None:
    longer = outputs.backups.primary.model_copy(update={"retention_days": 30})
    changed = outputs.model_copy(update={"backups": outputs.backups.model_copy(update={"primary": longer})})
    result = back_up(changed, open_stores(changed.backups), filled_url)
    [primary, _] = result.stores
    assert "asked for compliance, 30 days" in str(primary.error)


def test_a_clock_that_went_back_does_not_break_the_chain(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(outputs, stores, filled_url).manifest

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            del tz
            return datetime.now(UTC) - timedelta(days=2)

    monkeypatch.setattr(run_module, "datetime", Earlier)
    second = back_up(outputs, stores, filled_url).manifest
    assert second.id < first.id
    assert (second.sequence, second.previous) == (2, (first.key(),))
    assert read_catalogue(stores).find(None).key.id == second.id
    assert wrong(checks_of(outputs, stores, key)) == set()


def test_a_key_in_the_contract_that_is_none_is_named(outputs: StackOutputs) -> None:
    reference = outputs.backups.encryption_key.model_copy(update={"key": "alias/backup"})
    backups = outputs.backups.model_copy(update={"encryption_key": reference})
    with pytest.raises(KiloError, match=r"backups\.encryption_key\.key"):
        BackupKey(backups)


def test_a_database_that_is_down_is_unreachable(outputs: StackOutputs, stores: Stores) -> None:
    with pytest.raises(Unreachable, match="PostgreSQL"):
        back_up(outputs, stores, "postgresql://nobody:secretword@127.0.0.1:9/none")
