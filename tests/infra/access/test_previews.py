"""Who previews reads the state and images, who looks for drift how all is set up; neither what lies in it.

A preview runs a branch's own code, so what its role may do is what whoever opens a pull request may, once
somebody let the branch run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.clouds.key_policy import AUDIT as LOOK_AT_KEY
from components.clouds.registry_access import READ_PRIMARY
from infra.settings import Settings
from tests.infra.access.evaluator import Call, World
from tests.infra.access.test_access import AUDIT, BACKUP, BUCKET, COPY, KEPT, TENANT
from tests.infra.access.test_deployer import (
    OBJECT,
    STATE,
    calls,
    deployer,
    drift,
    preview,
    secret,
    settings,
    world,
)
from tests.infra.access.world import Stage, stage

__all__ = ["deployer", "drift", "preview", "settings", "world"]

OLD_OBJECT = f"arn:aws:s3:::{STATE}/.pulumi/history/kilo/prod/prod-1.history.json"


def common_calls(prod: Stage, who: str) -> Iterator[Call]:
    """What each job with credentials asks for (.github/actions/cloud), and the engine of its state."""
    yield Call(who, "eks:DescribeCluster", cluster(prod))
    for action in ("GetBucketLocation", "ListBucket"):
        yield Call(who, f"s3:{action}", f"arn:aws:s3:::{STATE}")
    yield Call(who, "s3:GetObject", OBJECT)


def calls_of_a_preview(prod: Stage, settings: Settings, who: str) -> Iterator[Call]:
    """What the jobs of `preview-STAGE` ask AWS for: .ci/preview, .ci/plan, .ci/parity.

    Who the caller is, the program's first question, takes no right.
    """
    yield from common_calls(prod, who)
    yield Call(who, "ecr:GetAuthorizationToken", "*")
    for name in settings.registry.every_repository:
        for action in READ_PRIMARY:
            yield Call(who, action, prod.arn("ecr", name))


def calls_of_the_look(prod: Stage, settings: Settings, who: str) -> Iterator[Call]:
    """What the job of `drift-STAGE` asks AWS for: .ci/preview --refresh, .ci/undeclared."""
    yield from common_calls(prod, who)
    yield Call(who, "ecr:DescribeRegistry", "*")
    yield Call(who, "kms:ListAliases", "*")
    yield Call(who, "tag:GetResources", "*")
    yield from looks(settings, who)
    for key in prod.keys.values():
        for action in LOOK_AT_KEY:
            yield Call(who, action, key)


def looks(settings: Settings, who: str) -> Iterator[Call]:
    """What the provider asks of what there is, as a refresh does."""
    for call in calls(settings, who):
        # The secret and the state are no resources of the program.
        if is_a_look(call.action) and ":secret:" not in call.resource and call.resource != OBJECT:
            yield call


def is_a_look(action: str) -> bool:
    return action.partition(":")[2].startswith(("Get", "List", "Describe"))


def changes(settings: Settings, who: str) -> Iterator[Call]:
    """Whatever else the provider asks for, and ways to more rights."""
    prod = stage("prod")
    for call in calls(settings, who):
        if not is_a_look(call.action):
            yield call
    for object_ in (OBJECT, OLD_OBJECT):
        for action in ("PutObject", "DeleteObject", "DeleteObjectVersion"):
            yield Call(who, f"s3:{action}", object_)
    for name in settings.registry.every_repository:
        for action in ("PutImage", "BatchDeleteImage", "SetRepositoryPolicy", "InitiateLayerUpload"):
            yield Call(who, f"ecr:{action}", prod.arn("ecr", name))
    yield Call(who, "tag:TagResources", "*")
    for action in ("CreateAccessEntry", "AssociateAccessPolicy", "UpdateClusterConfig"):
        yield Call(who, f"eks:{action}", cluster(prod))


def attacks_on_what_lies_there(prod: Stage, who: str) -> Iterator[tuple[str, Call]]:
    for bucket in (BUCKET, COPY, AUDIT):
        for name in (KEPT, "manifests/m.json", "log/1"):
            for action in (
                "GetObject",
                "GetObjectVersion",
                "GetObjectAttributes",
                "PutObject",
                "DeleteObject",
            ):
                yield "a backup or the audit's log", Call(who, f"s3:{action}", f"{bucket}/{name}")
    for name in ("kilo-prod-state-of-another", "kilo-stage-state"):
        yield "another state", Call(who, "s3:GetObject", f"arn:aws:s3:::{name}/.pulumi/stacks/kilo/prod.json")
    for suffix in ("", "-dead"):
        queue = prod.arn("sqs", f"kilo-prod-registry-push{suffix}")
        for action in ("ReceiveMessage", "DeleteMessage", "SendMessage", "PurgeQueue"):
            yield "messages", Call(who, f"sqs:{action}", queue)
    for key in prod.keys.values():
        for action in ("Decrypt", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "Sign", "CreateGrant"):
            for context in (TENANT, BACKUP, {}):
                yield "use of a key", Call(who, f"kms:{action}", key, context)
    yield "an image of others", Call(who, "ecr:BatchGetImage", prod.arn("ecr", "somebody/elses"))
    for name in ("ingest", "backup-drill", "key-making"):
        yield "a process' role", Call(who, "sts:AssumeRole", prod.role(name))


def cluster(prod: Stage) -> str:
    return f"arn:aws:eks:eu-central-1:{prod.account}:cluster/prod"


@pytest.fixture(scope="module")
def prod() -> Stage:
    return stage("prod")


def test_a_previews_calls_are_allowed(world: World, prod: Stage, settings: Settings, preview: str) -> None:
    made = list(calls_of_a_preview(prod, settings, preview))
    assert [call for call in made if not world.decide(call).allowed] == []


def test_the_calls_of_the_look_for_drift_are_allowed(
    world: World, prod: Stage, settings: Settings, drift: str
) -> None:
    made = list(calls_of_the_look(prod, settings, drift))
    assert {"s3:GetReplicationConfiguration", "iam:GetRolePolicy", "sqs:ListQueueTags"} <= {
        call.action for call in made
    }
    assert [call for call in made if not world.decide(call).allowed] == []


def test_who_previews_does_not_see_how_anything_is_set_up(
    world: World, prod: Stage, settings: Settings, preview: str
) -> None:
    needed = {(call.action, call.resource) for call in calls_of_a_preview(prod, settings, preview)}
    seen = [
        call
        for call in calls_of_the_look(prod, settings, preview)
        if (call.action, call.resource) not in needed and world.decide(call).allowed
    ]
    assert seen == []
    for bucket in (BUCKET, COPY, AUDIT):
        for action in ("ListBucket", "ListBucketVersions", "GetBucketPolicy"):
            assert not world.decide(Call(preview, f"s3:{action}", bucket)).allowed


@pytest.mark.parametrize("role", ["preview", "drift"])
def test_neither_reads_what_lies_there_nor_changes_anything(
    role: str, world: World, prod: Stage, settings: Settings
) -> None:
    who = f"arn:aws:iam::{prod.account}:role/{role}"
    through = [
        (what, call.action, call.resource)
        for what, call in (
            *attacks_on_what_lies_there(prod, who),
            *(("a change", call) for call in changes(settings, who)),
        )
        if world.decide(call).allowed
    ]
    assert through == []


@pytest.mark.parametrize("role", ["preview", "drift"])
def test_no_secret_is_read(role: str, world: World, prod: Stage) -> None:
    who = f"arn:aws:iam::{prod.account}:role/{role}"
    for name in ("kilo/prod/database-url-AbCdEf", "kilo/prod/other-AbCdEf", "kilo/stage/database-url-AbCdEf"):
        for action in ("GetSecretValue", "DescribeSecret", "BatchGetSecretValue", "PutSecretValue"):
            call = Call(who, f"secretsmanager:{action}", secret(prod.account, name))
            assert not world.decide(call).allowed, call
