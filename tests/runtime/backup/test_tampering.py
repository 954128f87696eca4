"""What somebody does to backups afterwards is found, and never restored."""

from __future__ import annotations

import json
from io import BytesIO

import boto3
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from kilo.backup.catalogue import read_catalogue, unwrap_data_key
from kilo.backup.cli import app
from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import LAST_PLACE, Manifest
from kilo.backup.prune import prune
from kilo.backup.restore import restore
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store, open_stores
from kilo.backup.stores.base import AlreadyExists
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, KiloError
from tests.runtime.backup.test_backup import back_up, checks_of, wrong
from tests.runtime.registry.proxy import Fault, Proxy

Stores = dict[str, Store]


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
    assert restore(spoiled["primary"], manifest, unwrap_data_key(key, manifest), target_url).rows == 20_104


def forge(stores: Stores, manifest: Manifest, sequence: int) -> Manifest:
    """What whoever may write can add: a manifest of any place and name, which nobody signed as it is."""
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
    evidence = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
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
    listed = CliRunner().invoke(app, ["list", "--json"])
    assert isinstance(listed.exception, CheckFailed)
    assert [row["error"] is None for row in json.loads(listed.stdout)] == [True, False]
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
    assert restored.rows == 20_104


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


def test_manifests_hold_no_secret(outputs: StackOutputs, stores: Stores, filled_url: str) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    password = filled_url.partition("@")[0].rpartition(":")[2]
    assert password not in manifest.content().decode()
    assert Manifest.model_validate_json(manifest.content()) == manifest


def test_invented_manifests_push_no_true_backup_out(
    outputs: StackOutputs, stores: Stores, filled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    forged = forge(stores, true, LAST_PLACE)
    monkeypatch.setattr("kilo.backup.prune._age_days", lambda *_: 1000.0)
    only = {"secondary": stores["secondary"]}
    results = prune(only, Verifier(outputs.backups), keep_days=1, keep_last=1)
    assert [(result.backup, result.outcome) for result in results] == [(forged.id, "removed")]
    assert read_catalogue(only).find(None).key.id == true.id
