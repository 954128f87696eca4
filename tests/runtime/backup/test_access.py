"""Who may do what, shown by calls that S3 and KMS refuse: moto with access control on.

The policies are those that the program gives. What is not shown here: Google Cloud's grants, whose
emulator lets everybody in (tests/components has them as configuration), and the key's own policy, which
moto does not ask; the users' policies say of KMS what it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import boto3
import pytest
import urllib3
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry

from components.clouds.key_policy import DECRYPT, ENCRYPT, SIGN, VERIFY
from kilo.backup.catalogue import read_catalogue, unwrap_data_key
from kilo.backup.drill import drill, keep_evidence
from kilo.backup.exporter import Exporter
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import Manifest
from kilo.backup.prune import prune
from kilo.backup.run import complete, run_backup
from kilo.backup.signatures import Signer, Verifier
from kilo.backup.stores import Store, StoreError, open_stores
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from tests.components.clouds.test_stores import RESTORER, vault
from tests.components.recorder import Recording
from tests.runtime.backup.conftest import REGION, make_signing_key, stage_outputs

BUCKET = "kilo-primary"
KMS = {
    "restore": [*DECRYPT, *VERIFY],
    "backup": [*ENCRYPT, *SIGN],
    "backup-drill": [*DECRYPT, *VERIFY],
    "backup-completion": VERIFY,
    "backup-exporter": VERIFY,
}


def _of_a_restorer() -> str:
    """What the bucket lets who is named do, as their own policy: moto asks no bucket who somebody is."""
    policy = vault(restorers=[RESTORER]).one("aws:s3/bucketPolicy:BucketPolicy").inputs["policy"]
    own = [
        {name: value for name, value in statement.items() if name != "Principal"}
        for statement in json.loads(policy)["Statement"]
        if statement["Effect"] == "Allow" and RESTORER in statement["Principal"]["AWS"]
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": own})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, gcs: FakeGcsServer) -> Iterator[Guarded]:
    server = MotoServer(tmp_path_factory.mktemp("guarded"))
    server.start()
    yield Guarded(server, gcs, vault())
    server.stop()


class Guarded:
    """The vault's bucket and key, and a user with the policies of each of its identities."""

    def __init__(self, server: MotoServer, gcs: FakeGcsServer, recording: Recording) -> None:
        self.server = server
        s3, iam = self._admin("s3"), self._admin("iam")
        s3.create_bucket(
            Bucket=BUCKET,
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        lock = recording.one("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
        default = lock.inputs["rule"]["defaultRetention"]
        retention = {"Mode": default["mode"], "Days": int(default["days"])}
        s3.put_object_lock_configuration(
            Bucket=BUCKET,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
        )
        policy = recording.one("aws:s3/bucketPolicy:BucketPolicy").inputs["policy"]
        s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
        urllib3.request("POST", f"{gcs.url}/storage/v1/b?project=tests", json={"name": BUCKET})
        kms = self._admin("kms")
        key = kms.create_key()["KeyMetadata"]["Arn"]
        outputs = stage_outputs(BUCKET, key, make_signing_key(kms))
        primary = outputs.backups.primary.model_copy(update={"lock_mode": "governance"})
        self.outputs = outputs.model_copy(
            update={"backups": outputs.backups.model_copy(update={"primary": primary})}
        )
        self.credentials: dict[str, tuple[str, str]] = {}
        policies = {
            found.inputs["role"]: found.inputs["policy"]
            for found in recording.of("aws:iam/rolePolicy:RolePolicy")
        }
        for user, document in {**policies, "restore": _of_a_restorer()}.items():
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="s3", PolicyDocument=document)
            if user in KMS:
                allowed = {"Effect": "Allow", "Action": list(KMS[user]), "Resource": "*"}
                of_keys = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
                iam.put_user_policy(UserName=user, PolicyName="kms", PolicyDocument=of_keys)
            made = iam.create_access_key(UserName=user)["AccessKey"]
            self.credentials[user] = (made["AccessKeyId"], made["SecretAccessKey"])
        urllib3.request("POST", f"{server.url}/moto-api/reset-auth", body=b"0")

    def _admin(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.server.url,
            region_name=REGION,
            aws_access_key_id="admin",
            aws_secret_access_key="admin",
        )


@pytest.fixture
def become(
    guarded: Guarded, cloud: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, Store]]:
    """Take an identity's credentials; its stores."""
    del cloud
    monkeypatch.setenv("AWS_ENDPOINT_URL", guarded.server.url)

    def take(user: str) -> dict[str, Store]:
        key_id, secret = guarded.credentials[user]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        return open_stores(guarded.outputs.backups)

    return take


Become = Callable[[str], dict[str, Store]]


@pytest.fixture
def manifest(become: Become, guarded: Guarded, filled_url: str) -> Manifest:
    """A backup that the writer has made."""
    result = run_backup(guarded.outputs, become("backup"), filled_url)
    assert result.whole, [str(store.error) for store in result.stores]
    assert result.stores[0].lock == "proven"
    return result.manifest


def denied(call: Callable[[], object], match: str = "AccessDenied|Forbidden|403") -> None:
    with pytest.raises((ClientError, StoreError, CheckFailed), match=match):
        call()


def key_of(outputs: StackOutputs) -> BackupKey:
    return BackupKey(outputs.backups)


def test_the_writer_adds_backups_and_nothing_else(
    become: Become, guarded: Guarded, manifest: Manifest
) -> None:
    stores = become("backup")
    dump = manifest.objects["database.dump"].key
    s3 = boto3.client("s3")
    [version] = [
        entry["VersionId"] for entry in s3.list_object_versions(Bucket=BUCKET, Prefix=dump)["Versions"]
    ]
    denied(lambda: list(stores["primary"].read(dump)))
    denied(lambda: stores["primary"].create("drills/x", BytesIO(b"false evidence")))
    denied(lambda: s3.get_object(Bucket=BUCKET, Key=dump))
    denied(lambda: s3.delete_object(Bucket=BUCKET, Key=dump))
    denied(lambda: s3.delete_object(Bucket=BUCKET, Key=dump, VersionId=version))
    denied(
        lambda: s3.delete_object(Bucket=BUCKET, Key=dump, VersionId=version, BypassGovernanceRetention=True)
    )
    denied(lambda: s3.put_object(Bucket=BUCKET, Key=dump, Body=b"ransom", ChecksumAlgorithm="SHA256"))
    denied(
        lambda: s3.put_object(
            Bucket=BUCKET, Key=dump, Body=b"ransom", IfNoneMatch="*", ChecksumAlgorithm="SHA256"
        ),
        match="PreconditionFailed",
    )
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=dump)["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key=dump, UploadId=upload, PartNumber=1, Body=b"ransom")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    denied(
        lambda: s3.complete_multipart_upload(Bucket=BUCKET, Key=dump, UploadId=upload, MultipartUpload=parts)
    )
    denied(
        lambda: s3.put_object_retention(
            Bucket=BUCKET,
            Key=dump,
            VersionId=version,
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2026-01-01T00:00:00Z"},
            BypassGovernanceRetention=True,
            ChecksumAlgorithm="SHA256",
        )
    )
    denied(
        lambda: s3.put_object(
            Bucket=BUCKET,
            Key="backups/for-ever",
            Body=b"a bill that nobody can stop",
            IfNoneMatch="*",
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate="2126-01-01T00:00:00Z",
            ChecksumAlgorithm="SHA256",
        )
    )
    denied(lambda: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"))
    denied(lambda: unwrap_data_key(key_of(guarded.outputs), manifest))
    denied(lambda: Verifier(guarded.outputs.backups).verify(manifest.signature, "x", b"", "x"))
    assert [entry.key.id for entry in read_catalogue(stores).entries][-1] == manifest.id


def test_the_drill_reads_backups_and_adds_evidence(
    become: Become, guarded: Guarded, manifest: Manifest
) -> None:
    stores = become("backup-drill")
    results = drill(
        {"primary": stores["primary"]},
        Verifier(guarded.outputs.backups),
        key_of(guarded.outputs),
        manifest.id,
    )
    assert [result.error for result in results] == [None]
    assert keep_evidence(stores, results) == []
    denied(lambda: stores["primary"].create("backups/false", BytesIO(b"false")))
    denied(lambda: stores["primary"].create("manifests/false", BytesIO(b"false")))
    denied(lambda: stores["primary"].delete(manifest.key()))
    denied(lambda: key_of(guarded.outputs).make({"purpose": "backup"}))
    denied(lambda: Signer(guarded.outputs.backups).sign("manifest", b"false"))


def test_who_restores_reads_and_does_not_write(become: Become, guarded: Guarded, manifest: Manifest) -> None:
    stores = become("restore")
    assert read_catalogue({"primary": stores["primary"]}).find(manifest.id).stores == ("primary",)
    manifest.check_signature(Verifier(guarded.outputs.backups), "here")
    assert unwrap_data_key(key_of(guarded.outputs), manifest)
    assert stores["primary"].configured_lock() == ("governance", 7)
    size = manifest.objects["database.dump"].size
    assert len(b"".join(stores["primary"].read(manifest.objects["database.dump"].key))) == size
    denied(lambda: key_of(guarded.outputs).make({"purpose": "backup"}))
    denied(lambda: Signer(guarded.outputs.backups).sign("manifest", b"false"))
    for key in ("backups/x", "drills/x", "manifests/x"):
        denied(lambda key=key: stores["primary"].create(key, BytesIO(b"x")))
    denied(lambda: stores["primary"].delete(manifest.key()))


def test_completing_copies_what_it_cannot_decrypt(
    become: Become, guarded: Guarded, manifest: Manifest
) -> None:
    stores = become("backup-completion")
    manifest.check_signature(Verifier(guarded.outputs.backups), "here")
    denied(lambda: Signer(guarded.outputs.backups).sign("manifest", b"false"))
    for key in [manifest.key(), *(state.key for state in manifest.objects.values())]:
        stores["secondary"].delete(key)
    assert complete(guarded.outputs, stores["primary"], "secondary", stores["secondary"], manifest)
    assert read_catalogue(stores).find(manifest.id).stores == ("primary", "secondary")
    denied(lambda: unwrap_data_key(key_of(guarded.outputs), manifest))
    denied(lambda: stores["primary"].delete(manifest.key()))


def test_watching_reads_no_backup(become: Become, guarded: Guarded, manifest: Manifest) -> None:
    stores = become("backup-exporter")
    registry = CollectorRegistry()
    exporter = Exporter(stores, Verifier(guarded.outputs.backups), registry)
    exporter.look()
    assert registry.get_sample_value("backup_size_bytes", {"store": "primary"}) == manifest.size
    denied(lambda: list(stores["primary"].read(manifest.objects["database.dump"].key)))
    denied(lambda: stores["primary"].create("drills/x", BytesIO(b"false evidence")))
    denied(lambda: Signer(guarded.outputs.backups).sign("manifest", b"false"))


def test_nobody_prunes_what_is_locked(become: Become, guarded: Guarded, manifest: Manifest) -> None:
    for user in ("backup", "backup-drill", "backup-completion", "backup-exporter", "restore"):
        stores = become(user)
        results = prune(
            {"primary": stores["primary"]}, Verifier(guarded.outputs.backups), keep_days=1, keep_last=1
        )
        assert not [result for result in results if result.outcome == "removed"]
        denied(lambda stores=stores: stores["primary"].delete(manifest.key()))
