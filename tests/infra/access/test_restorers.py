"""Who a stage's file names to restore by hand: reads the stores and opens backups, and does nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.configuration import read_stage_file
from tests.infra.access.evaluator import Call, google_allows
from tests.infra.access.test_access import (
    ACME,
    AUDIT,
    BACKUP,
    BACKUPS,
    BUCKET,
    COPY,
    GOOGLE_BUCKET,
    KEPT,
    NEW,
    SIGNING,
    TENANT,
    made,
    prod,
)
from tests.infra.access.world import ROOT, Stage, rendered

__all__ = ["prod"]

PEOPLE = "group:restorers@example.com"


@pytest.fixture(scope="module")
def with_restorers() -> Stage:
    """prod, whose file names who restores by hand."""
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")
    named = {"restorers": (_restorer(settings.aws.account_id),), "google_restorers": (PEOPLE,)}
    backups = settings.backups.model_copy(update=named)
    return rendered(settings.model_copy(update={"backups": backups}))


def _restorer(account: str) -> str:
    return f"arn:aws:iam::{account}:role/restorer"


def _calls_of_a_restore(prod: Stage, who: str) -> Iterator[Call]:
    """What `kilo backup list`, `verify` and `restore` ask AWS for, in either region."""
    for bucket in (BUCKET, COPY):
        yield Call(who, "s3:ListBucketVersions", bucket)
        yield Call(who, "s3:GetBucketObjectLockConfiguration", bucket)
        for name in (KEPT, "manifests/m.json", "drills/d.json"):
            yield Call(who, "s3:GetObjectVersion", f"{bucket}/{name}")
            yield Call(who, "s3:GetObjectRetention", f"{bucket}/{name}")
    for suffix in ("", "-replica"):
        yield Call(who, "kms:Decrypt", prod.keys[f"{BACKUPS}{suffix}"], BACKUP)
        yield Call(who, "kms:GetPublicKey", prod.keys[f"{SIGNING}{suffix}"])
        for key in (BACKUPS, SIGNING):
            yield Call(who, "kms:DescribeKey", prod.keys[f"{key}{suffix}"])


def _attacks_of_a_restorer(prod: Stage, who: str) -> Iterator[Call]:
    for suffix in ("", "-replica"):
        key, signing = prod.keys[f"{BACKUPS}{suffix}"], prod.keys[f"{SIGNING}{suffix}"]
        for action in ("Encrypt", "GenerateDataKey", "ReEncryptFrom", "CreateGrant"):
            yield Call(who, f"kms:{action}", key, BACKUP)
        for context in (TENANT, {}):
            yield Call(who, "kms:Decrypt", key, context)
        yield Call(who, "kms:Sign", signing)
        for each in (key, signing):
            for action in ("PutKeyPolicy", "ScheduleKeyDeletion", "DisableKey"):
                yield Call(who, f"kms:{action}", each)
    yield Call(who, "kms:Decrypt", prod.keys[ACME], TENANT)
    for bucket in (BUCKET, COPY, AUDIT):
        for name in (KEPT, "manifests/m.json", "drills/d.json", "failures/f"):
            yield Call(who, "s3:PutObject", f"{bucket}/{name}", NEW)
            for action in ("DeleteObject", "DeleteObjectVersion", "PutObjectRetention"):
                yield Call(who, f"s3:{action}", f"{bucket}/{name}")
            yield Call(who, "s3:BypassGovernanceRetention", f"{bucket}/{name}")
        yield Call(who, "s3:PutBucketPolicy", bucket)
    yield Call(who, "s3:GetObjectVersion", f"{AUDIT}/log/1")
    yield Call(who, "s3:GetObjectVersion", f"{BUCKET}/{KEPT}", {"aws:SecureTransport": "false"})


def test_who_is_named_restores_and_does_nothing_else(with_restorers: Stage) -> None:
    who = _restorer(with_restorers.account)
    calls = list(_calls_of_a_restore(with_restorers, who))
    assert [call for call in calls if not with_restorers.world.decide(call).allowed] == []
    attacks = list(_attacks_of_a_restorer(with_restorers, who))
    assert [call for call in attacks if with_restorers.world.decide(call).allowed] == []


def test_who_is_not_named_restores_nothing(prod: Stage, with_restorers: Stage) -> None:
    account = prod.account
    for which, who in (
        (prod, _restorer(account)),
        (with_restorers, f"{_restorer(account)}s"),
        (with_restorers, f"arn:aws:iam::{account}:root"),
        (with_restorers, _restorer("999999999999")),
    ):
        calls = _calls_of_a_restore(which, who)
        assert [call for call in calls if which.world.decide(call).allowed] == []


def test_with_restorers_the_processes_have_what_they_had(prod: Stage, with_restorers: Stage) -> None:
    assert all(with_restorers.world.decide(call).allowed for call in made(with_restorers))
    assert prod.world.identities == with_restorers.world.identities


def test_google_lets_who_is_named_read_the_secondary_store(prod: Stage, with_restorers: Stage) -> None:
    place = f"projects/_/buckets/{GOOGLE_BUCKET}"

    def may(which: Stage, permission: str, name: str) -> bool:
        where = f"{place}/objects/{name}" if name else place
        return google_allows(which.google[GOOGLE_BUCKET], PEOPLE, f"storage.{permission}", where)

    for permission, name in (
        ("buckets.get", ""),
        ("objects.list", ""),
        ("objects.get", KEPT),
        ("objects.get", "manifests/m.json"),
    ):
        assert may(with_restorers, permission, name)
        assert not may(prod, permission, name)
    for permission in ("objects.create", "objects.update", "objects.delete"):
        assert not may(with_restorers, permission, KEPT)
    assert not may(with_restorers, "buckets.setIamPolicy", "")
