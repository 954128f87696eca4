"""What goes wrong while a backup is taken, and what somebody does to it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from runtime.backup import run as run_module
from runtime.backup.catalogue import read_catalogue, unwrap_data_key
from runtime.backup.cli import app
from runtime.backup.drill import drill
from runtime.backup.exporter import Exporter
from runtime.backup.fanout import Pipe, fan_out
from runtime.backup.keys import BackupKey
from runtime.backup.locks import check_lock
from runtime.backup.manifest import LAST_PLACE, Manifest
from runtime.backup.restore import restore
from runtime.backup.stores import Lock, Store, open_stores
from runtime.backup.stores.base import AlreadyExists, StoreError
from runtime.contract import StackOutputs
from runtime.errors import CheckFailed, KiloError, Unreachable
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from sandbox.toolchain import path
from tests.runtime.backup.test_backup import back_up, checks_of, wrong
from tests.runtime.registry.proxy import Fault, Proxy

Stores = dict[str, Store]


@pytest.fixture
def s3_proxy(cloud: None, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    del cloud
    proxy = Proxy(moto.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def gcs_proxy(cloud: None, gcs: FakeGcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    del cloud
    proxy = Proxy(gcs.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    yield proxy
    proxy.close()


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
    Exporter(stores, registry).look()
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
    [result] = drill({"primary": stores["primary"]}, key)
    assert result.error
    assert "pg_restore" in result.error


def test_a_dump_that_lacks_a_table_fails_the_drill(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, pg_dump: Callable[[str], None]
) -> None:
    """It restores without an error, and is still no backup."""
    pg_dump('exec "$REAL" "$@" --exclude-table-data=public.days_2026')
    back_up(outputs, stores, filled_url)
    [result] = drill({"primary": stores["primary"]}, key)
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
    command = [
        sys.executable,
        "-c",
        "from runtime.cli import main; raise SystemExit(main())",
        "backup",
        "run",
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"DATABASE_URL": filled_url}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not any("database.dump" in url for _, url in s3_proxy.asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stores = open_stores(outputs.backups)
    assert read_catalogue(stores).entries == []
    s3_proxy.rule = lambda _method, _url: None
    assert back_up(outputs, stores, filled_url).whole
    assert wrong(checks_of(outputs, stores, key)) == set()


def test_a_corrupted_object_is_found_and_never_restored(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str, gcs_proxy: Proxy
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    place = len(b"KILOBAK1") + 500

    def flip(body: bytes) -> bytes:
        return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] if len(body) > place else body

    media = "database.dump", "alt=media"
    gcs_proxy.rule = lambda _, url: Fault(spoil=flip) if all(part in url for part in media) else None
    spoiled = open_stores(outputs.backups)
    assert wrong(checks_of(outputs, spoiled, key)) == {("secondary", "database.dump")}
    with pytest.raises(KiloError):
        restore(spoiled["secondary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert restore(spoiled["primary"], manifest, unwrap_data_key(key, manifest), target_url).rows == 20_102


def test_a_forged_manifest_is_refused(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    with pytest.raises(CheckFailed, match="seal"):
        unwrap_data_key(key, manifest.model_copy(update={"database": "other"}))
    foreign = manifest.encryption.model_copy(update={"context": {"purpose": "other", "backup": manifest.id}})
    with pytest.raises(CheckFailed, match="another purpose"):
        unwrap_data_key(key, manifest.model_copy(update={"encryption": foreign}))


def forge(stores: Stores, manifest: Manifest, sequence: int) -> Manifest:
    """What whoever may write can add: a manifest of any place and name, which no data key has sealed."""
    changes = {"sequence": sequence, "id": "99991231T235959Z-ffffff", "tables": {}}
    forged = manifest.model_copy(update=changes)
    for store in stores.values():
        store.create(forged.key(), BytesIO(forged.content()))
    return forged


@pytest.mark.parametrize("place", [2, LAST_PLACE])
def test_an_invented_manifest_neither_ends_the_chain_nor_stops_a_drill(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, place: int
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    forged = forge(stores, true, place)
    assert read_catalogue(stores).find(None).key.id == forged.id
    assert ("primary", "manifest") in wrong(checks_of(outputs, stores, key))
    evidence = drill({"primary": stores["primary"]}, key)
    assert [(each.backup, each.error is None) for each in evidence] == [
        ("not-genuine", False),
        (true.id, True),
    ]
    following = back_up(outputs, stores, filled_url).manifest
    assert following.sequence == min(place + 1, LAST_PLACE)
    assert following.previous == (forged.key(),)
    listed = [entry.key.id for entry in read_catalogue(stores).entries]
    assert following.id in listed
    assert true.id in listed


@pytest.mark.usefixtures("outputs_file")
def test_a_restore_passes_an_invented_manifest_over_and_says_so(
    outputs: StackOutputs, stores: Stores, filled_url: str, target_url: str
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    forge(stores, true, 2)
    listed = CliRunner().invoke(app, ["list"])
    assert listed.exception is None
    restored = CliRunner().invoke(app, ["restore", "--to", target_url, "--json"])
    assert restored.exception is None
    assert json.loads(restored.stdout)["backup"] == true.id
    assert "passed over" in restored.stderr


@pytest.mark.usefixtures("outputs_file")
def test_listing_shows_what_can_be_read_beside_what_cannot(
    outputs: StackOutputs, stores: Stores, filled_url: str
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    key = f"manifests/00000002-20260101T000000Z-abcdef-{'0' * 64}.json"
    stores["primary"].create(key, BytesIO(b"{}"))
    outcome = CliRunner().invoke(app, ["list", "--json"])
    assert isinstance(outcome.exception, CheckFailed)
    rows = json.loads(outcome.stdout)
    assert [(row["backup"], row["error"] is None) for row in rows] == [
        (true.id, True),
        ("20260101T000000Z-abcdef", False),
    ]


def test_a_host_whose_clock_is_days_off_does_not_misjudge_locks(
    outputs: StackOutputs, stores: Stores
) -> None:
    """The lock's length is told by the store's times alone."""
    lock = stores["primary"].create("backups/x/clock", BytesIO(b"x"))
    assert lock.until
    for days in (-40, 40):
        moved = Lock(lock.mode, lock.until + timedelta(days=days), lock.created_at + timedelta(days=days))
        assert check_lock(stores["primary"], outputs.backups.primary, moved) == "proven"
    shorter = Lock(lock.mode, lock.until - timedelta(days=1), lock.created_at)
    with pytest.raises(CheckFailed, match="asked for compliance, 7 days"):
        check_lock(stores["primary"], outputs.backups.primary, shorter)


def test_the_writer_can_neither_overwrite_nor_delete(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, target_url: str
) -> None:
    """With the writer's credentials, an attacker against the lock that moto enforces."""
    manifest = back_up(outputs, stores, filled_url).manifest
    object_key = manifest.objects["database.dump"].key
    bucket = outputs.backups.primary.bucket
    s3 = boto3.client("s3")
    [version] = s3.list_object_versions(Bucket=bucket, Prefix=object_key)["Versions"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key=object_key, VersionId=version["VersionId"])
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key=object_key, Body=b"ransom", IfNoneMatch="*")
    with pytest.raises(AlreadyExists):
        stores["primary"].create(object_key, BytesIO(b"ransom"))
    # Without a condition moto takes it as a new version: found, and the true one is what is read.
    s3.put_object(Bucket=bucket, Key=object_key, Body=b"ransom")
    assert wrong(checks_of(outputs, stores, key)) == {("primary", "tampering")}
    restored = restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert restored.rows == 20_102


def test_a_deleted_object_is_found(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    stores["secondary"].delete(manifest.objects["globals.sql"].key)
    assert wrong(checks_of(outputs, stores, key)) == {
        ("secondary", "globals.sql"),
        ("secondary", "lock of globals.sql"),
    }
    boto3.client("s3").delete_object(Bucket=outputs.backups.primary.bucket, Key=manifest.key())
    [entry] = read_catalogue(stores).entries
    assert entry.stores == ("primary", "secondary"), "a delete marker hides it and does not remove it"
    assert entry.listed["primary"].covered == "hidden by a delete marker"
    assert ("primary", "tampering") in wrong(checks_of(outputs, stores, key))


def test_a_version_under_an_attackers_is_still_the_first_after_many(
    outputs: StackOutputs, stores: Stores
) -> None:
    """Within one second, and with markers in between."""
    s3, bucket = boto3.client("s3"), outputs.backups.primary.bucket
    stores["primary"].create("backups/x/one", BytesIO(b"true"))
    for number in range(4):
        s3.put_object(Bucket=bucket, Key="backups/x/one", Body=b"false %d" % number)
        s3.delete_object(Bucket=bucket, Key="backups/x/one")
    assert b"".join(stores["primary"].read("backups/x/one")) == b"true"
    [info] = stores["primary"].list("backups/x/")
    assert (info.size, info.covered) == (4, "hidden by a delete marker")
    with pytest.raises(KeyError):
        stores["primary"].lock("backups/x/on")


def test_a_marker_without_a_version_is_no_object(outputs: StackOutputs, stores: Stores) -> None:
    boto3.client("s3").delete_object(Bucket=outputs.backups.primary.bucket, Key="backups/none")
    assert stores["primary"].list("backups/") == []


def test_what_the_lifecycle_has_expired_is_no_longer_listed(
    outputs: StackOutputs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores["primary"].create("backups/x/one", BytesIO(b"old"))
    boto3.client("s3").delete_object(Bucket=outputs.backups.primary.bucket, Key="backups/x/one")
    assert len(stores["primary"].list("backups/")) == 1
    monkeypatch.setattr(stores["primary"], "_retention", timedelta(days=-1))
    assert stores["primary"].list("backups/") == []


def test_an_answer_that_was_lost_is_no_failure(
    s3_proxy: Proxy, outputs: StackOutputs, stores: Stores
) -> None:
    """S3 has taken it, the connection breaks, and the library asks again: what is in the way is our own."""
    lost: list[str] = []

    def lose(method: str, url: str) -> Fault | None:
        finishing = "uploadId" in url and "partNumber" not in url if "large" in url else method == "PUT"
        if "backups/lost" in url and finishing and not any(url.partition("?")[0] in each for each in lost):
            lost.append(url)
            return Fault(cut_answer_after=0)
        return None

    s3_proxy.rule = lose
    store = open_stores(outputs.backups)["primary"]
    assert store.create("backups/lost/small", BytesIO(b"small")).mode == "compliance"
    large = os.urandom(9 * 1024 * 1024)
    assert store.create("backups/lost/large", BytesIO(large)).mode == "compliance"
    assert len(lost) == 2
    assert b"".join(store.read("backups/lost/large")) == large
    with pytest.raises(AlreadyExists):
        store.create("backups/lost/small", BytesIO(b"other"))
    assert stores["primary"].list("backups/lost/")[0].covered == ""


def upload_with_a_hitch(
    proxy: Proxy, outputs: StackOutputs, fault: Fault, content: bytes
) -> KiloError | None:
    """Upload to Google with ``fault`` on the first and third chunk; what came of it."""
    hit: list[str] = []

    def once_a_chunk(method: str, url: str) -> Fault | None:
        if method == "PUT" and "upload" in url:
            hit.append(url)
            return fault if len(hit) in {1, 3} else None
        return None

    proxy.rule = once_a_chunk
    store = open_stores(outputs.backups)["secondary"]
    pieces = [content[start : start + 1_000_000] for start in range(0, len(content), 1_000_000)]

    def consume(pipe: Pipe) -> KiloError | None:
        try:
            store.create("backups/x/hitch", pipe)
        except StoreError as error:
            return error
        assert b"".join(store.read("backups/x/hitch")) == content
        return None

    return fan_out(pieces, {"secondary": consume})["secondary"].result


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut_request_after=3_000_000)], ids=["unavailable", "request cut"]
)
def test_an_upload_to_google_goes_on_after_a_hitch(
    gcs_proxy: Proxy, outputs: StackOutputs, fault: Fault
) -> None:
    """A chunk is sent again, though the stream can't be read twice."""
    assert upload_with_a_hitch(gcs_proxy, outputs, fault, os.urandom(20 * 1024 * 1024)) is None


def test_an_upload_that_arrives_otherwise_is_no_backup(gcs_proxy: Proxy, outputs: StackOutputs) -> None:
    """Google knows what it has when an answer is lost; the emulator takes a chunk twice. That is caught."""
    fault = Fault(cut_answer_after=0)
    error = upload_with_a_hitch(gcs_proxy, outputs, fault, os.urandom(20 * 1024 * 1024))
    assert "DataCorruption" in str(error)


def test_reading_goes_on_where_the_connection_broke(s3_proxy: Proxy, outputs: StackOutputs) -> None:
    store = open_stores(outputs.backups)["primary"]
    content = os.urandom(5 * 1024 * 1024)
    store.create("backups/x/cut", BytesIO(content))
    broken: list[str] = []

    def cut(method: str, url: str) -> Fault | None:
        if method == "GET" and "backups/x/cut" in url and len(broken) < 3:
            broken.append(url)
            return Fault(cut_answer_after=1_500_000)
        return None

    s3_proxy.rule = cut
    assert b"".join(store.read("backups/x/cut")) == content
    assert len(broken) == 3
    s3_proxy.rule = lambda method, url: Fault(cut_answer_after=0) if "x/cut" in url else None
    with pytest.raises(KiloError, match="broke off"):
        list(store.read("backups/x/cut"))


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


def test_manifests_hold_no_secret(outputs: StackOutputs, stores: Stores, filled_url: str) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    password = filled_url.partition("@")[0].rpartition(":")[2]
    assert password not in manifest.content().decode()
    assert Manifest.model_validate_json(manifest.content()) == manifest
