"""Locked buckets in both clouds, and who may do what with backups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from components.clouds.backup_vault import BackupVault, BackupVaultArgs, Replica
from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.clouds.gcs_locked_bucket import GcsLockedBucket, GcsLockedBucketArgs
from components.clouds.key_policy import DECRYPT, ENCRYPT, SIGN, VERIFY, KeyUser
from components.clouds.s3_locked_bucket import S3LockedBucket, S3LockedBucketArgs
from tests.components.recorder import Recorded, Recording, record

POOL = "projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"
OIDC = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/CAFE"


def s3(lock_mode: Literal["governance", "compliance"] = "governance", *, protect: bool = True) -> Recording:
    return record(
        lambda: S3LockedBucket(
            "store",
            S3LockedBucketArgs(
                bucket="kilo-store", lock_mode=lock_mode, lock_days=7, keep_days=30, protect=protect, tags={}
            ),
        )
    )


def gcs(*, locked: bool = False, protect: bool = True) -> Recording:
    return record(
        lambda: GcsLockedBucket(
            "store",
            GcsLockedBucketArgs(
                bucket="kilo-store",
                location="europe-west3",
                lock_days=7,
                locked=locked,
                keep_days=30,
                protect=protect,
                labels={},
            ),
        )
    )


RESTORER = "arn:aws:iam::123456789012:role/restorer"


def vault(
    replica: Replica | None = None, restorers: Sequence[str] = (), google_restorers: Sequence[str] = ()
) -> Recording:
    def program() -> None:
        def identity(name: str) -> CloudIdentity:
            return CloudIdentity(
                name,
                CloudIdentityArgs(
                    namespace="kilo",
                    service_accounts=[name],
                    role_name=name,
                    oidc_provider_arn=OIDC,
                    google_identity_provider=POOL,
                ),
            )

        writer, restorer = identity("backup"), identity("backup-drill")
        completer, watcher = identity("backup-completion"), identity("backup-exporter")
        made = BackupVault(
            "backups",
            BackupVaultArgs(
                primary_bucket="kilo-primary",
                primary_lock_mode="governance",
                secondary_bucket="kilo-secondary",
                secondary_location="europe-west3",
                secondary_locked=False,
                lock_days=7,
                keep_days=30,
                key_alias="alias/kilo/dev/backup",
                key_administrators=["arn:aws:iam::123456789012:role/admin"],
                key_auditors=[],
                key_users=[
                    KeyUser("Backup", writer.role_arn, ENCRYPT),
                    KeyUser("Drill", restorer.role_arn, DECRYPT),
                ],
                key_deletion_window_days=30,
                key_context={"purpose": "backup"},
                signing_key_alias="alias/kilo/dev/backup-signing",
                signing_key_users=[
                    KeyUser("Backup", writer.role_arn, SIGN),
                    KeyUser("Drill", restorer.role_arn, VERIFY),
                ],
                protect=True,
                tags={},
                restorers=restorers,
                google_restorers=google_restorers,
                replica=replica,
            ),
        )
        made.allow_writing(writer)
        made.allow_drilling(restorer)
        made.allow_completing(completer)
        made.allow_watching(watcher)

    return record(program)


def actions(recording: Recording, policy: str) -> set[str]:
    document = json.loads(recording.one("aws:iam/rolePolicy:RolePolicy", policy).inputs["policy"])
    return {action for statement in document["Statement"] for action in statement["Action"]}


def statement(recording: Recording, policy: str, sid: str) -> dict[str, Any]:
    document = json.loads(recording.one("aws:iam/rolePolicy:RolePolicy", policy).inputs["policy"])
    return next(each for each in document["Statement"] if each["Sid"] == sid)


@pytest.mark.parametrize(
    ("lock_mode", "written"), [("governance", "GOVERNANCE"), ("compliance", "COMPLIANCE")]
)
def test_every_new_object_is_locked(lock_mode: Literal["governance", "compliance"], written: str) -> None:
    recording = s3(lock_mode)
    assert recording.one("aws:s3/bucket:Bucket").inputs["objectLockEnabled"] is True
    lock = recording.one("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    assert lock.inputs["rule"]["defaultRetention"] == {"mode": written, "days": 7}


def test_the_lock_is_set_after_versioning_which_it_needs() -> None:
    recording = s3()
    versioning = recording.one("aws:s3/bucketVersioning:BucketVersioning")
    assert versioning.inputs["versioningConfiguration"] == {"status": "Enabled"}
    lock = recording.one("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    assert versioning.urn in lock.dependencies


def test_requests_without_tls_are_denied() -> None:
    policy = json.loads(s3().one("aws:s3/bucketPolicy:BucketPolicy").inputs["policy"])
    [statement] = [each for each in policy["Statement"] if each["Sid"] == "DenyWithoutTls"]
    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
    assert statement["Resource"] == ["arn:aws:s3:::kilo-store", "arn:aws:s3:::kilo-store/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_nothing_can_be_public_and_nobody_else_owns_objects() -> None:
    recording = s3()
    block = recording.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").inputs
    assert all(
        block[name] is True
        for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    )
    ownership = recording.one("aws:s3/bucketOwnershipControls:BucketOwnershipControls").inputs
    assert ownership["rule"] == {"objectOwnership": "BucketOwnerEnforced"}


@pytest.mark.parametrize("store", [s3, gcs])
def test_a_locked_bucket_is_protected_with_all_that_makes_it_locked(store: Any) -> None:
    for resource in store().resources:
        if resource.custom:
            assert resource.protect, resource.type
            assert resource.retain_on_delete, resource.type
            assert not resource.inputs.get("forceDestroy"), resource.type


@pytest.mark.parametrize("store", [s3, gcs])
def test_a_throw_away_stage_can_empty_its_buckets(store: Any) -> None:
    for resource in store(protect=False).resources:
        assert not resource.protect
        assert not resource.retain_on_delete
        assert resource.inputs.get("forceDestroy", True)


@pytest.mark.parametrize("locked", [False, True])
def test_a_google_bucket_is_private_and_retains(locked: bool) -> None:
    inputs = gcs(locked=locked).one("gcp:storage/bucket:Bucket").inputs
    assert inputs["uniformBucketLevelAccess"] is True
    assert inputs["publicAccessPrevention"] == "enforced"
    assert inputs["retentionPolicy"] == {"retentionPeriod": str(7 * 86_400), "isLocked": locked}


def test_who_writes_backups_can_neither_read_nor_delete_them() -> None:
    recording = vault()
    allowed = actions(recording, "backup-write-backups")
    assert "s3:PutObject" in allowed
    assert (
        not {"s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"}
        & allowed
    )
    member = recording.one("gcp:storage/bucketIAMMember:BucketIAMMember", "backups-backup").inputs
    assert member["role"] == "roles/storage.objectCreator"
    # Evidence of drills, which pruning goes by, is not the writer's to add.
    written = statement(recording, "backup-write-backups", "Write")["Resource"]
    assert written == [f"arn:aws:s3:::kilo-primary/{name}/*" for name in ("backups", "manifests", "failures")]
    assert "drills/" not in member["condition"]["expression"]


def grants(recording: Recording, account: str) -> dict[str, str | None]:
    """What an account may do in the secondary store: under which condition, by role."""
    return {
        member.inputs["role"].removeprefix("roles/storage."): (member.inputs.get("condition") or {}).get(
            "expression"
        )
        for member in recording.of("gcp:storage/bucketIAMMember:BucketIAMMember")
        if member.inputs["member"].endswith(f":kilo:{account}")
    }


def allowed_by(resource: Recorded) -> dict[str, tuple[Any, Any, Any]]:
    """Whom a policy lets in, to do what, where: of each statement that allows, by its Sid."""
    return {
        each["Sid"]: (each["Principal"], each["Action"], each["Resource"])
        for each in json.loads(resource.inputs["policy"])["Statement"]
        if each["Effect"] == "Allow"
    }


def test_who_restores_by_hand_reads_both_stores_and_the_copy_and_writes_none() -> None:
    people = "group:restorers@example.com"
    recording = vault(Replica("eu-west-1", "kilo-replica", "copies"), [RESTORER], [people])
    for name in ("primary", "replica"):
        policy = recording.one("aws:s3/bucketPolicy:BucketPolicy", f"backups-{name}")
        arn = f"arn:aws:s3:::kilo-{name}"
        assert allowed_by(policy) == {
            "ReadersList": (
                {"AWS": [RESTORER]},
                ["s3:GetBucketObjectLockConfiguration", "s3:ListBucketVersions"],
                [arn],
            ),
            "ReadersRead": (
                {"AWS": [RESTORER]},
                ["s3:GetObjectRetention", "s3:GetObjectVersion"],
                [f"{arn}/*"],
            ),
        }
    members = [
        (member.name, member.inputs["role"], member.inputs.get("condition"))
        for member in recording.of("gcp:storage/bucketIAMMember:BucketIAMMember")
        if member.inputs["member"] == people
    ]
    who = "backups-restorer-group-restorers@example.com"
    assert sorted(members) == [
        (who, "roles/storage.objectViewer", None),
        (f"{who}-legacyBucketReader", "roles/storage.legacyBucketReader", None),
    ]


def test_who_restores_by_hand_opens_backups_and_verifies_manifests() -> None:
    recording = vault(restorers=[RESTORER])
    for key, action in (("backups", "kms:Decrypt"), ("backups-signing", "kms:GetPublicKey")):
        found = allowed_by(recording.one("aws:kms/key:Key", key))
        assert found["RestorerUses"] == ({"AWS": [RESTORER]}, [action], "*")
        assert found["RestorerDescribes"] == ({"AWS": [RESTORER]}, ["kms:DescribeKey"], "*")


def test_without_restorers_no_policy_names_any() -> None:
    recording = vault()
    assert allowed_by(recording.one("aws:s3/bucketPolicy:BucketPolicy")) == {}
    assert "Restorer" not in recording.one("aws:kms/key:Key", "backups").inputs["policy"]


def test_nobody_may_delete_backups_or_lift_their_lock() -> None:
    recording = vault()
    for policy in recording.of("aws:iam/rolePolicy:RolePolicy"):
        for action in actions(recording, policy.name):
            assert not action.startswith(("s3:Delete", "s3:Bypass", "s3:PutObjectRetention", "s3:PutBucket"))
    for account in ("backup", "backup-drill", "backup-completion", "backup-exporter"):
        # None of these roles has storage.objects.delete or .update.
        assert grants(recording, account).keys() <= {"objectCreator", "objectViewer", "legacyBucketReader"}


def test_who_drills_adds_evidence_and_nothing_else() -> None:
    recording = vault()
    written = statement(recording, "backup-drill-read-backups", "Write")
    assert written["Resource"] == ["arn:aws:s3:::kilo-primary/drills/*"]
    evidence = 'resource.name.startsWith("projects/_/buckets/kilo-secondary/objects/drills/")'
    assert grants(recording, "backup-drill") == {
        "objectViewer": None,
        "legacyBucketReader": None,
        "objectCreator": evidence,
    }


def test_who_watches_reads_no_backup() -> None:
    recording = vault()
    read = statement(recording, "backup-exporter-watch-backups", "Read")
    assert not any(resource.endswith(("primary/*", "backups/*")) for resource in read["Resource"])
    expression = grants(recording, "backup-exporter")["objectViewer"]
    assert expression
    assert expression.count("startsWith") == 3
    assert "objects/backups/" not in expression


def test_nobody_overwrites_an_object_or_locks_it_for_longer() -> None:
    policy = json.loads(s3().one("aws:s3/bucketPolicy:BucketPolicy").inputs["policy"])
    found = {each["Sid"]: each for each in policy["Statement"]}
    assert all((each["Effect"], each["Principal"]) == ("Deny", "*") for each in policy["Statement"])
    assert found["DenyOverwriting"]["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    limit = found["DenyLongerLocks"]["Condition"]["NumericGreaterThan"]
    assert limit == {"s3:object-lock-remaining-retention-days": "8"}


def test_who_writes_backups_cannot_decrypt_them() -> None:
    policy = json.loads(vault().one("aws:kms/key:Key", "backups").inputs["policy"])
    found = {statement["Sid"]: statement for statement in policy["Statement"]}
    assert found["BackupUses"]["Action"] == ["kms:Encrypt"]
    assert found["DrillUses"]["Action"] == ["kms:Decrypt"]
    assert found["BackupUses"]["Condition"] == {"StringEquals": {"kms:EncryptionContext:purpose": "backup"}}


def test_who_writes_backups_signs_and_who_reads_them_only_verifies() -> None:
    recording = vault()
    key = recording.one("aws:kms/key:Key", "backups-signing")
    assert (key.inputs["keyUsage"], key.inputs["customerMasterKeySpec"]) == ("SIGN_VERIFY", "ECC_NIST_P256")
    assert key.protect
    assert key.retain_on_delete
    found = {each["Sid"]: each for each in json.loads(key.inputs["policy"])["Statement"]}
    assert found["BackupUses"]["Action"] == ["kms:Sign"]
    assert found["DrillUses"]["Action"] == ["kms:GetPublicKey"]
    assert not set(found["Administer"]["Action"]) & {"kms:Sign", "kms:CreateGrant"}


def test_google_access_is_given_to_the_service_account_itself() -> None:
    member = vault().one("gcp:storage/bucketIAMMember:BucketIAMMember", "backups-backup").inputs["member"]
    assert member == (
        "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool"
        "/subject/system:serviceaccount:kilo:backup"
    )


def test_a_role_is_taken_by_its_service_account_alone() -> None:
    trust = json.loads(vault().one("aws:iam/role:Role", "backup").inputs["assumeRolePolicy"])
    (statement,) = trust["Statement"]
    issuer = "oidc.eks.eu-central-1.amazonaws.com/id/CAFE"
    assert statement["Principal"] == {"Federated": OIDC}
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:sub": ["system:serviceaccount:kilo:backup"],
            f"{issuer}:aud": "sts.amazonaws.com",
        }
    }


def test_a_replica_is_locked_elsewhere_and_the_key_goes_with_it() -> None:
    recording = vault(Replica("eu-west-1", "kilo-replica", "copies"))
    there = [resource for resource in recording.resources if resource.inputs.get("region") == "eu-west-1"]
    assert {resource.type.rpartition(":")[2] for resource in there} == {
        "Bucket",
        "BucketLifecycleConfiguration",
        "BucketObjectLockConfiguration",
        "BucketOwnershipControls",
        "BucketPolicy",
        "BucketPublicAccessBlock",
        "BucketServerSideEncryptionConfiguration",
        "BucketVersioning",
        "ReplicaKey",
    }
    assert all(resource.protect and resource.retain_on_delete for resource in there)
    for name, replica in (("backups", "backups-replica"), ("backups-signing", "backups-signing-replica")):
        key = recording.one("aws:kms/key:Key", name).inputs
        assert key["multiRegion"] is True
        assert recording.one("aws:kms/replicaKey:ReplicaKey", replica).inputs["policy"] == key["policy"]
    [rule] = recording.one("aws:s3/bucketReplicationConfig:BucketReplicationConfig").inputs["rules"]
    assert rule["destination"] == {"bucket": "arn:aws:s3:::kilo-replica"}
    assert rule["deleteMarkerReplication"] == {"status": "Disabled"}


def test_the_replica_is_written_by_the_replication_alone_and_read_by_who_restores() -> None:
    recording = vault(Replica("eu-west-1", "kilo-replica", "copies"))
    for policy in recording.of("aws:iam/rolePolicy:RolePolicy"):
        for each in json.loads(policy.inputs["policy"])["Statement"]:
            to_replica = [found for found in each["Resource"] if "kilo-replica" in found]
            if to_replica and policy.inputs["role"] == "copies":
                assert each["Action"] == ["s3:ReplicateObject", "s3:ReplicateTags"]
            elif to_replica:
                assert each["Sid"] in {"List", "Read"}, policy.name
    read = statement(recording, "backup-drill-read-backups", "Read")["Resource"]
    assert "arn:aws:s3:::kilo-replica/*" in read
    assert "kilo-replica" not in str(statement(recording, "backup-write-backups", "List"))
