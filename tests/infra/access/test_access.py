"""Who may do what in the clouds: each call that the platform makes is allowed, each attack is denied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

import kilo
from components.clouds.key_policy import ADMINISTER
from components.clouds.key_policy import AUDIT as LOOK
from tests.infra.access.evaluator import Call, google_allows
from tests.infra.access.world import HOME, Stage, stage

OPERATIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "get_object": "s3:GetObjectVersion",  # All of them name the version.
    "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
    "get_object_retention": "s3:GetObjectRetention",
    "list_object_versions": "s3:ListBucketVersions",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "decrypt": "kms:Decrypt",
    "describe_key": "kms:DescribeKey",
    "encrypt": "kms:Encrypt",
    "get_public_key": "kms:GetPublicKey",
    "sign": "kms:Sign",
    "change_message_visibility": "sqs:ChangeMessageVisibility",
    "change_message_visibility_batch": "sqs:ChangeMessageVisibility",
    "delete_message": "sqs:DeleteMessage",
    "delete_message_batch": "sqs:DeleteMessage",
    "get_queue_attributes": "sqs:GetQueueAttributes",
    "receive_message": "sqs:ReceiveMessage",
    "get_authorization_token": "ecr:GetAuthorizationToken",
    "get_secret_value": "secretsmanager:GetSecretValue",
}
"""What the platform's code asks AWS for, and the right that it takes."""

NO_PROCESS = {"delete_object"}
"""What no process asks for: deleting, which is an operator's, where no lock is in the way."""

TENANT = {"kms:EncryptionContext:tenant": "acme", "kms:EncryptionContext:purpose": "field"}
BACKUP = {"kms:EncryptionContext:purpose": "backup"}
NEW = {"s3:if-none-match": "*", "s3:ObjectCreationOperation": "true"}
PART = {"s3:ObjectCreationOperation": "false"}
ACME, BACKUPS, SIGNING = "tenant-keys--multi-acme", "backups", "backups-signing"
BUCKET, COPY, AUDIT = (f"arn:aws:s3:::kilo-prod-{name}" for name in ("backups-eu", "backups-ie", "audit-eu"))
GOOGLE_BUCKET = "kilo-prod-backups-eu-gcs"
KEPT = "backups/kilo/20261129T000000Z.dump"
READS = ("backup-completion", "backup-drill")
LISTS = ("backup", *READS, "backup-exporter")
ECR = (
    "BatchCheckLayerAvailability",
    "BatchGetImage",
    "DescribeImages",
    "DescribeRepositories",
    "GetDownloadUrlForLayer",
    "ListImages",
)


@pytest.fixture(scope="module")
def prod() -> Stage:
    return stage("prod")


def made(prod: Stage) -> Iterator[Call]:
    """The calls of the processes, those of the clouds for them, and the engine's to keys."""
    yield from _of_backups(prod)
    yield from _of_keys(prod)
    yield from _of_registries(prod)
    yield _reads_url(prod, "schema")
    for account in ("ingest", "consumer", "key-making", "backup", "registry-mirror", "schema"):
        yield _assumed(prod, account, f"system:serviceaccount:kilo-prod:{account}")
    replication = prod.role("backup-replication")
    at = {"aws:SourceArn": BUCKET}
    yield Call("s3.amazonaws.com", "sts:AssumeRole", replication, at)
    yield Call(replication, "s3:GetReplicationConfiguration", BUCKET)
    yield Call(replication, "s3:GetObjectVersionForReplication", f"{BUCKET}/{KEPT}")
    yield Call(replication, "s3:GetObjectRetention", f"{BUCKET}/{KEPT}")
    yield Call(replication, "s3:ReplicateObject", f"{COPY}/{KEPT}")


def _reads_url(prod: Stage, who: str, stage: str = "prod") -> Call:
    """The administrator's URL of a stage's database, as AWS names the secret."""
    place = f"arn:aws:secretsmanager:{HOME}:{prod.account}:secret:kilo/{stage}/database-url-AbCdEf"
    return Call(prod.role(who), "secretsmanager:GetSecretValue", place)


def _of_backups(prod: Stage) -> Iterator[Call]:
    for who in LISTS:
        yield Call(prod.role(who), "s3:ListBucketVersions", BUCKET)
        yield Call(prod.role(who), "s3:GetBucketObjectLockConfiguration", BUCKET)
    written = {
        "backup": (KEPT, "manifests/m.json", "failures/f"),
        "backup-completion": (KEPT, "manifests/m.json"),
        "backup-drill": ("drills/d.json",),
    }
    for who, names in written.items():
        for name in names:
            yield Call(prod.role(who), "s3:PutObject", f"{BUCKET}/{name}", NEW)
            yield Call(prod.role(who), "s3:PutObject", f"{BUCKET}/{name}", PART)
            yield Call(prod.role(who), "s3:AbortMultipartUpload", f"{BUCKET}/{name}")
            yield Call(prod.role(who), "s3:GetObjectRetention", f"{BUCKET}/{name}")
    for who in READS:
        for bucket in (BUCKET, COPY):
            yield Call(prod.role(who), "s3:GetObjectVersion", f"{bucket}/{KEPT}")
            yield Call(prod.role(who), "s3:GetObjectRetention", f"{bucket}/{KEPT}")
    for name in ("manifests/m.json", "drills/d.json", "failures/f"):
        yield Call(prod.role("backup-exporter"), "s3:GetObjectVersion", f"{BUCKET}/{name}")
    for key in (BACKUPS, f"{BACKUPS}-replica"):
        yield Call(prod.role("backup"), "kms:Encrypt", prod.keys[key], BACKUP)
        yield Call(prod.role("backup-drill"), "kms:Decrypt", prod.keys[key], BACKUP)
    for key in (SIGNING, f"{SIGNING}-replica"):
        yield Call(prod.role("backup"), "kms:Sign", prod.keys[key])
        for who in (*READS, "backup-exporter"):
            yield Call(prod.role(who), "kms:GetPublicKey", prod.keys[key])


def _of_keys(prod: Stage) -> Iterator[Call]:
    for key in (ACME, f"{ACME}-eu-west-1"):
        for who in ("ingest", "consumer"):
            yield Call(prod.role(who), "kms:Decrypt", prod.keys[key], TENANT)
            yield Call(prod.role(who), "kms:DescribeKey", prod.keys[key])
        yield Call(prod.role("key-making"), "kms:Encrypt", prod.keys[key], TENANT)
    deployer = f"arn:aws:iam::{prod.account}:role/deployer"
    for arn in prod.keys.values():
        for action in ADMINISTER:
            yield Call(deployer, action, arn)
        yield Call(deployer, "kms:ReplicateKey", arn, {"kms:ReplicaRegion": "eu-west-1"})
        # What a refresh asks of a key, each night.
        for action in LOOK:
            yield Call(f"arn:aws:iam::{prod.account}:role/drift", action, arn)


def _of_registries(prod: Stage) -> Iterator[Call]:
    push, dead = (prod.arn("sqs", f"kilo-prod-registry-push{suffix}") for suffix in ("", "-dead"))
    for who in ("registry-mirror", "registry-sweep"):
        yield Call(prod.role(who), "ecr:GetAuthorizationToken", "*")
        for action in ECR:
            yield Call(prod.role(who), f"ecr:{action}", prod.arn("ecr", "shop/orders"))
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes"):
        yield Call(prod.role("registry-mirror"), f"sqs:{action}", push)
    yield Call(prod.role("registry-mirror"), "sqs:GetQueueAttributes", dead)
    rule = {"aws:SourceArn": prod.arn("cloudwatch", "kilo-prod-registry-push")}
    for queue in (push, dead):
        yield Call("events.amazonaws.com", "sqs:SendMessage", queue, rule)


def _assumed(prod: Stage, account: str, subject: str, audience: str = "sts.amazonaws.com") -> Call:
    issuer = prod.issuer.partition(":oidc-provider/")[2]
    token = {f"{issuer}:sub": subject, f"{issuer}:aud": audience}
    return Call(prod.issuer, "sts:AssumeRoleWithWebIdentity", prod.role(account), token)


def attacks(prod: Stage) -> Iterator[tuple[str, Call]]:
    """What must not go through, with what it would be."""
    yield from _attacks_on_keys(prod)
    yield from _attacks_on_backups(prod)
    yield from _attacks_on_identities(prod)


def _attacks_on_keys(prod: Stage) -> Iterator[tuple[str, Call]]:
    acme, deployer = prod.keys[ACME], f"arn:aws:iam::{prod.account}:role/deployer"
    other = {**TENANT, "kms:EncryptionContext:tenant": "globex"}
    for who in ("ingest", "consumer"):
        role = prod.role(who)
        yield "another tenant's context", Call(role, "kms:Decrypt", acme, other)
        yield "no context", Call(role, "kms:Decrypt", acme)
        yield (
            "a wildcard for a tenant",
            Call(role, "kms:Decrypt", acme, {"kms:EncryptionContext:tenant": "*"}),
        )
        yield (
            "a tenant in capitals",
            Call(role, "kms:Decrypt", acme, {"kms:EncryptionContext:tenant": "ACME"}),
        )
        yield "wrapping by who reads", Call(role, "kms:Encrypt", acme, TENANT)
        yield "a process ends a tenant", Call(role, "kms:ScheduleKeyDeletion", acme)
        yield "a process widens access", Call(role, "kms:PutKeyPolicy", acme)
        yield "a grant gives use away", Call(role, "kms:CreateGrant", acme, TENANT)
        yield "wrapping anew under a key of one's own", Call(role, "kms:ReEncryptFrom", acme, TENANT)
        yield "backups read by a service", Call(role, "kms:Decrypt", prod.keys[BACKUPS], BACKUP)
    yield "reading by who makes keys", Call(prod.role("key-making"), "kms:Decrypt", acme, TENANT)
    for action in ("Decrypt", "Encrypt", "GenerateDataKey", "CreateGrant", "ReEncryptFrom", "Sign"):
        for key in (ACME, BACKUPS, SIGNING):
            yield "use by who administers", Call(deployer, f"kms:{action}", prod.keys[key], {**TENANT})
    drift = f"arn:aws:iam::{prod.account}:role/drift"
    changing = (*(action for action in ADMINISTER if action not in LOOK), "kms:ReplicateKey")
    for action in (*changing, *(f"kms:{use}" for use in ("Decrypt", "Encrypt", "Sign", "CreateGrant"))):
        for key in (ACME, BACKUPS, SIGNING):
            yield "more than a look by who audits", Call(drift, action, prod.keys[key], {**TENANT})
    yield (
        "a copy outside of the stage's regions",
        Call(deployer, "kms:ReplicateKey", acme, {"kms:ReplicaRegion": "us-east-1"}),
    )
    root = f"arn:aws:iam::{prod.account}:root"
    for who in (root, f"arn:aws:iam::{prod.account}:role/Admin", "arn:aws:iam::999999999999:role/ingest"):
        yield "a stranger to the key", Call(who, "kms:Decrypt", acme, TENANT)
    yield "anybody", Call("*", "kms:Decrypt", acme, TENANT)
    yield "another process of the cluster", Call(prod.role("registry-mirror"), "kms:Decrypt", acme, TENANT)
    for who in ("backup-completion", "backup-exporter", "backup-drill", "ingest"):
        yield "a manifest signed by another", Call(prod.role(who), "kms:Sign", prod.keys[SIGNING])
    yield "backups read by who writes", Call(prod.role("backup"), "kms:Decrypt", prod.keys[BACKUPS], BACKUP)
    yield (
        "a backup's key under another purpose",
        Call(prod.role("backup-drill"), "kms:Decrypt", prod.keys[BACKUPS], TENANT),
    )


def _attacks_on_backups(prod: Stage) -> Iterator[tuple[str, Call]]:
    for who in (*LISTS, "ingest", "consumer", "backup-replication"):
        role, kept = prod.role(who), f"{BUCKET}/{KEPT}"
        for action in ("DeleteObject", "DeleteObjectVersion", "BypassGovernanceRetention"):
            yield "a backup deleted", Call(role, f"s3:{action}", kept)
        for action in ("PutObjectRetention", "PutObjectLegalHold", "PutObjectAcl"):
            yield "a lock or its access changed", Call(role, f"s3:{action}", kept)
        for action in ("PutBucketPolicy", "PutLifecycleConfiguration", "PutBucketObjectLockConfiguration"):
            yield "a bucket's rules changed", Call(role, f"s3:{action}", BUCKET)
        yield "written into the copy", Call(role, "s3:PutObject", f"{COPY}/{KEPT}", NEW)
    writer = prod.role("backup")
    yield (
        "an object overwritten",
        Call(writer, "s3:PutObject", f"{BUCKET}/{KEPT}", {"s3:ObjectCreationOperation": "true"}),
    )
    yield (
        "without TLS",
        Call(writer, "s3:PutObject", f"{BUCKET}/{KEPT}", {**NEW, "aws:SecureTransport": "false"}),
    )
    yield (
        "locked for a thousand years",
        Call(
            writer,
            "s3:PutObject",
            f"{BUCKET}/{KEPT}",
            {**NEW, "s3:object-lock-remaining-retention-days": "365000"},
        ),
    )
    yield "backups read by who writes", Call(writer, "s3:GetObjectVersion", f"{BUCKET}/{KEPT}")
    yield (
        "backups read by who watches",
        Call(prod.role("backup-exporter"), "s3:GetObjectVersion", f"{BUCKET}/{KEPT}"),
    )
    yield "evidence forged", Call(writer, "s3:PutObject", f"{BUCKET}/drills/d.json", NEW)
    yield (
        "a backup forged by the drill",
        Call(prod.role("backup-drill"), "s3:PutObject", f"{BUCKET}/{KEPT}", NEW),
    )
    yield "above the prefixes", Call(writer, "s3:PutObject", f"{BUCKET}/backupsX", NEW)
    yield "another bucket of a like name", Call(writer, "s3:PutObject", f"{BUCKET}-x/{KEPT}", NEW)
    for who in (*LISTS, "ingest", "consumer", "key-making"):
        yield "the audit's log written", Call(prod.role(who), "s3:PutObject", f"{AUDIT}/log/1", NEW)
        yield "the audit's log read", Call(prod.role(who), "s3:GetObjectVersion", f"{AUDIT}/log/1")
    yield "anybody reads", Call("*", "s3:GetObjectVersion", f"{BUCKET}/{KEPT}")


def _attacks_on_identities(prod: Stage) -> Iterator[tuple[str, Call]]:
    subject = "system:serviceaccount:kilo-prod:"
    yield "another's ServiceAccount", _assumed(prod, "backup-drill", f"{subject}ingest")
    yield "another namespace's", _assumed(prod, "ingest", "system:serviceaccount:default:ingest")
    yield "another stage's", _assumed(prod, "ingest", "system:serviceaccount:kilo-stage:ingest")
    yield "a wildcard for a subject", _assumed(prod, "ingest", f"{subject}*")
    yield "a token for another audience", _assumed(prod, "ingest", f"{subject}ingest", "vault")
    yield "no claims", Call(prod.issuer, "sts:AssumeRoleWithWebIdentity", prod.role("ingest"))
    other = prod.issuer.replace("/id/9", "/id/8")
    claims = _assumed(prod, "ingest", f"{subject}ingest").context
    yield (
        "another cluster's issuer",
        Call(other, "sts:AssumeRoleWithWebIdentity", prod.role("ingest"), claims),
    )
    for who in (*LISTS, "ingest", "consumer", "key-making", "registry-mirror", "registry-sweep"):
        yield "the administrator's URL", _reads_url(prod, who)
    yield "another stage's URL", _reads_url(prod, "schema", "stage")
    changed = _reads_url(prod, "schema")
    yield "the URL changed", Call(changed.principal, "secretsmanager:PutSecretValue", changed.resource)
    for who in ("ingest", "registry-mirror"):
        yield "one role takes another", Call(prod.role(who), "sts:AssumeRole", prod.role("backup-drill"))
    yield (
        "another bucket's replication",
        Call(
            "s3.amazonaws.com",
            "sts:AssumeRole",
            prod.role("backup-replication"),
            {"aws:SourceArn": "arn:aws:s3:::somebody-elses"},
        ),
    )
    push = prod.arn("sqs", "kilo-prod-registry-push")
    other_rule = {"aws:SourceArn": f"arn:aws:events:{HOME}:999999999999:rule/kilo-prod-registry-push"}
    yield "another account's rule", Call("events.amazonaws.com", "sqs:SendMessage", push, other_rule)
    yield "no rule", Call("events.amazonaws.com", "sqs:SendMessage", push)
    for who in ("registry-mirror", "registry-sweep", "ingest"):
        yield "an event forged", Call(prod.role(who), "sqs:SendMessage", push)
        yield "events lost", Call(prod.role(who), "sqs:PurgeQueue", push)
        for action in ("PutImage", "BatchDeleteImage", "SetRepositoryPolicy", "PutLifecyclePolicy"):
            yield "the primary written", Call(prod.role(who), f"ecr:{action}", prod.arn("ecr", "shop/orders"))
    yield "the sweep takes events", Call(prod.role("registry-sweep"), "sqs:ReceiveMessage", push)
    yield (
        "another repository",
        Call(prod.role("registry-mirror"), "ecr:BatchGetImage", prod.arn("ecr", "shop/orders-secret")),
    )


def test_each_call_that_is_made_is_allowed(prod: Stage) -> None:
    refused = [(call, said.because) for call in made(prod) if not (said := prod.world.decide(call)).allowed]
    assert not refused
    assert prod.policies > 40


def test_each_attack_is_denied(prod: Stage) -> None:
    through = [
        (what, call, said.because)
        for what, call in attacks(prod)
        if (said := prod.world.decide(call)).allowed
    ]
    assert not through


def test_a_bucket_refuses_even_who_may_do_everything(prod: Stage) -> None:
    """The deny statements themselves: without them an administrator of S3 would come through."""
    role = f"arn:aws:iam::{prod.account}:role/s3-administrator"
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    prod.world.identities[role] = [{"Version": "2012-10-17", "Statement": [statement]}]
    try:
        for bucket, days in ((BUCKET, 36), (COPY, 36), (AUDIT, 366)):
            place = f"{bucket}/{KEPT}"
            assert prod.world.decide(Call(role, "s3:PutObject", place, NEW)).allowed
            longer = {**NEW, "s3:object-lock-remaining-retention-days": str(days + 1)}
            for context, sid in (
                ({"s3:ObjectCreationOperation": "true"}, "DenyOverwriting"),
                ({**NEW, "aws:SecureTransport": "false"}, "DenyWithoutTls"),
                (longer, "DenyLongerLocks"),
            ):
                assert (
                    prod.world.decide(Call(role, "s3:PutObject", place, context)).because
                    == f"denied by {sid}"
                )
    finally:
        del prod.world.identities[role]


def test_no_call_of_the_code_is_left_out(prod: Stage) -> None:
    session: Any = botocore.session.get_session()
    known = {
        str(xform_name(name))
        for service in ("s3", "kms", "sqs", "ecr")
        for name in session.get_service_model(service).operation_names
    }
    sources = Path(kilo.__file__).parent.rglob("*.py")
    texts = [text for path in sources if "import boto3" in (text := path.read_text(encoding="utf-8"))]
    called = {
        word for text in texts for pair in re.findall(r"""\.(\w+)\(|["'](\w+)["']""", text) for word in pair
    }
    assert called & known <= set(OPERATIONS) | NO_PROCESS
    assert {"receive_message", "get_object_retention", "decrypt"} <= called
    asked = {call.action for call in made(prod)}
    assert {action for name, action in OPERATIONS.items() if name in called} <= asked


def test_googles_bindings_keep_the_same_hands_apart(prod: Stage) -> None:
    pool = "principal://iam.googleapis.com/projects/300000000003/locations/global/workloadIdentityPools/kilo-prod"

    def may(who: str, permission: str, name: str) -> bool:
        place = f"projects/_/buckets/{GOOGLE_BUCKET}" + (f"/objects/{name}" if name else "")
        member = f"{pool}/subject/system:serviceaccount:kilo-prod:{who}"
        return google_allows(prod.google[GOOGLE_BUCKET], member, f"storage.{permission}", place)

    for who in LISTS:
        assert may(who, "buckets.get", "")
        assert may(who, "objects.list", "")
        assert not may(who, "objects.delete", KEPT)
        assert not may(who, "objects.update", KEPT)
        assert not may(who, "buckets.setIamPolicy", "")
        assert may(who, "objects.create", KEPT) == (who in {"backup", "backup-completion"})
        assert may(who, "objects.get", KEPT) == (who in READS)
        assert may(who, "objects.create", "drills/d.json") == (who == "backup-drill")
        assert may(who, "objects.get", "manifests/m.json") == (who != "backup")
    for who in ("ingest", "consumer", "registry-mirror"):
        assert not may(who, "objects.list", "")
        assert not may(who, "objects.get", KEPT)
    uploads = "artifactregistry.repositories.uploadArtifacts"
    for who in ("registry-mirror", "registry-sweep", "backup", "ingest"):
        member = f"{pool}/subject/system:serviceaccount:kilo-prod:{who}"
        allowed = google_allows(prod.google["kilo-prod"], member, uploads, "kilo-prod")
        assert allowed == who.startswith("registry-")
