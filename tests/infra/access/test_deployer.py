"""Who deploys a stage may do what the providers do, and no attack goes through, nor by who only looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from infra.configuration import read_stage_file
from infra.limits import IAM_INLINE_CHARACTERS, size_of
from infra.settings import Settings
from infra.target.rights import (
    boundary_arn,
    boundary_policy,
    deployer_policies,
    drift_policies,
    preview_policies,
)
from sandbox.providers import aws as providers
from tests.infra.access.evaluator import Call, World
from tests.infra.access.test_access import ACME, made
from tests.infra.access.world import stage

ROOT = Path(__file__).parents[3]
STATE = "kilo-prod-state"
NEW_KEY = "arn:aws:kms:eu-central-1:{}:key/new"
"""One that is being made, with the policy of any."""
OBJECT = f"arn:aws:s3:::{STATE}/.pulumi/stacks/kilo/prod.json"
PROVIDERS = Path(str(providers.__file__)).parent
SESSION: Any = botocore.session.get_session()
RIGHTS = {
    "DeleteBucketEncryption": "s3:PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "s3:PutLifecycleConfiguration",
    "DeleteBucketOwnershipControls": "s3:PutBucketOwnershipControls",
    "DeleteBucketReplication": "s3:PutReplicationConfiguration",
    "DeleteBucketTagging": "s3:PutBucketTagging",
    "DeletePublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetBucketReplication": "s3:GetReplicationConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "HeadBucket": "s3:ListBucket",
    "PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "PutBucketReplication": "s3:PutReplicationConfiguration",
    "PutObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}
"""Operations of S3 whose right is called otherwise."""
NEVER_CALLED = {
    "ecr": {"SetRepositoryPolicy", "GetRepositoryPolicy", "DeleteRepositoryPolicy"}
    | {"GetRegistryScanningConfiguration", "PutRegistryScanningConfiguration"},
    # The program has no policies of their own; what bounds a role stays on it.
    "iam": {"AttachRolePolicy", "DetachRolePolicy", "DeleteRolePermissionsBoundary"}
    | {f"{verb}Policy{what}" for verb in ("Create", "Delete", "Get") for what in ("", "Version")}
    | {"ListPolicyTags", "ListPolicyVersions"}
    # The bootstrap's.
    | {f"{verb}OpenIDConnectProvider" for verb in ("Create", "Get", "Delete", "Tag", "Untag")}
    | {"AddClientIDToOpenIDConnectProvider", "RemoveClientIDFromOpenIDConnectProvider"},
    # Objects are deleted with a bucket that is not protected, which prod's are.
    "s3": {"DeleteBucket", "DeleteObject", "ListObjectVersions"},
}
"""What the provider can do and does for nothing of prod."""
GONE = {"DeleteRepository"}
"""Of what is protected."""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_stage_file(ROOT / "Pulumi.prod.yaml")


@pytest.fixture(scope="module")
def deployer(settings: Settings) -> str:
    return f"arn:aws:iam::{settings.aws.account_id}:role/deployer"


@pytest.fixture(scope="module")
def preview(settings: Settings) -> str:
    return f"arn:aws:iam::{settings.aws.account_id}:role/preview"


@pytest.fixture(scope="module")
def drift(settings: Settings) -> str:
    return f"arn:aws:iam::{settings.aws.account_id}:role/drift"


@pytest.fixture(scope="module")
def world(settings: Settings, deployer: str, preview: str, drift: str) -> World:
    known = stage("prod").world
    own = {
        deployer: [dict(each) for each in deployer_policies(settings, STATE).values()],
        preview: [dict(each) for each in preview_policies(settings, STATE).values()],
        drift: [dict(each) for each in drift_policies(settings, STATE).values()],
    }
    new = {NEW_KEY.format(settings.aws.account_id): known.resources[stage("prod").keys[ACME]]}
    return World({**known.identities, **own}, {**known.resources, **new})


def called(*modules: str) -> set[str]:
    """The operations that the provider's modules ask of the service that they are named after."""
    service = "s3" if modules[0].startswith("s3") else modules[0]
    names = {str(xform_name(name)): str(name) for name in SESSION.get_service_model(service).operation_names}
    text = "".join((PROVIDERS / f"{module}.py").read_text(encoding="utf-8") for module in modules)
    found = {names[word] for word in re.findall(r"\w+", text) if word in names}
    return found - NEVER_CALLED.get(service, set()) - GONE


def things(settings: Settings) -> Mapping[str, list[str]]:
    """What the program makes, by service."""
    prod = stage("prod")
    buckets = (settings.backups.primary.bucket, settings.audit.bucket)
    return {
        "s3": [f"arn:aws:s3:::{bucket}" for bucket in buckets],
        "ecr": [prod.arn("ecr", name) for name in settings.registry.every_repository],
        "sqs": [prod.arn("sqs", f"kilo-prod-registry-push{suffix}") for suffix in ("", "-dead")],
        "events": [prod.arn("cloudwatch", "kilo-prod-registry-push")],
        "iam": [prod.role(name) for name in ("ingest", "backup", "backup-replication")],
    }


def calls(settings: Settings, who: str) -> Iterator[Call]:
    """The provider's calls, of everything that it makes."""
    modules = {"s3": ("s3", "s3_settings"), **{name: (name,) for name in ("ecr", "sqs", "events", "iam")}}
    bounded = {"iam:PermissionsBoundary": boundary_arn(settings)}
    for service, arns in things(settings).items():
        for operation in sorted(called(*modules[service])):
            action = RIGHTS.get(operation, f"{service}:{operation}")
            for arn in arns:
                yield Call(who, action, arn, bounded if service == "iam" else {})
    prod = stage("prod")
    tagged = {"aws:RequestTag/stage": "prod"}
    yield Call(who, "kms:CreateKey", "*", tagged)
    yield Call(who, "kms:TagResource", NEW_KEY.format(prod.account), tagged)
    alias = f"arn:aws:kms:eu-central-1:{prod.account}:alias/kilo/prod/tenant/acme"
    for action in ("CreateAlias", "UpdateAlias", "DeleteAlias"):
        yield Call(who, f"kms:{action}", alias)
    yield Call(who, "secretsmanager:DescribeSecret", secret(prod.account, "kilo/prod/database-url-AbCdEf"))
    at = {"iam:PassedToService": "s3.amazonaws.com"}
    yield Call(who, "iam:PassRole", prod.role("backup-replication"), at)
    for action in ("GetObject", "PutObject", "DeleteObject"):
        yield Call(who, f"s3:{action}", OBJECT)


def secret(account: str, name: str) -> str:
    return f"arn:aws:secretsmanager:eu-central-1:{account}:secret:{name}"


def attacks(settings: Settings, who: str) -> Iterator[tuple[str, Call]]:
    prod = stage("prod")
    role, account = prod.role("ingest"), prod.account
    bounded = {"iam:PermissionsBoundary": boundary_arn(settings)}
    yield "a role without a boundary", Call(who, "iam:CreateRole", role)
    for other in ("AdministratorAccess", "kilo-stage-boundary"):
        wider = {"iam:PermissionsBoundary": f"arn:aws:iam::{account}:policy/{other}"}
        yield "a wider boundary", Call(who, "iam:CreateRole", role, wider)
        yield "a boundary changed for a wider one", Call(who, "iam:PutRolePermissionsBoundary", role, wider)
        yield "rights for a role with another boundary", Call(who, "iam:PutRolePolicy", role, wider)
    yield "rights for a role without one", Call(who, "iam:PutRolePolicy", role)
    yield "the boundary taken away", Call(who, "iam:DeleteRolePermissionsBoundary", role, bounded)
    for action in ("CreatePolicyVersion", "DeletePolicy", "SetDefaultPolicyVersion"):
        yield "the boundary itself changed", Call(who, f"iam:{action}", boundary_arn(settings))
    administrator = {"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess", **bounded}
    yield "an administrator made", Call(who, "iam:AttachRolePolicy", role, administrator)
    for name in ("deployer", "preview", "drift", "Admin", "kilo-stage-ingest", "kilo-prod"):
        other = f"arn:aws:iam::{account}:role/{name}"
        for action in ("PutRolePolicy", "UpdateAssumeRolePolicy", "CreateRole", "DeleteRole"):
            yield "another's role changed", Call(who, f"iam:{action}", other, bounded)
        yield "another's role passed on", Call(who, "iam:PassRole", other)
    yield (
        "a process' role given to a machine",
        Call(who, "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}),
    )
    for action in ("CreateUser", "CreateAccessKey", "CreateOpenIDConnectProvider", "CreateServiceLinkedRole"):
        yield "a way back in", Call(who, f"iam:{action}", f"arn:aws:iam::{account}:user/me")
    bucket = f"arn:aws:s3:::{settings.backups.primary.bucket}"
    for action in ("GetObject", "GetObjectVersion", "PutObject", "DeleteObjectVersion"):
        yield "what lies in a bucket", Call(who, f"s3:{action}", f"{bucket}/backups/x")
    yield "a lock lifted", Call(who, "s3:BypassGovernanceRetention", f"{bucket}/backups/x")
    yield "a protected bucket ended", Call(who, "s3:DeleteBucket", bucket)
    yield "another's bucket", Call(who, "s3:PutBucketPolicy", "arn:aws:s3:::somebody-elses")
    yield "the state's bucket opened", Call(who, "s3:PutBucketPolicy", f"arn:aws:s3:::{STATE}")
    yield "old states removed", Call(who, "s3:DeleteObjectVersion", OBJECT)
    for name in ("kilo/prod/database-url-AbCdEf", "kilo/stage/database-url-AbCdEf", "kilo/prod/other-AbCdEf"):
        yield "a secret read", Call(who, "secretsmanager:GetSecretValue", secret(account, name))
    yield (
        "a secret changed",
        Call(who, "secretsmanager:PutSecretValue", secret(account, "kilo/prod/database-url-AbCdEf")),
    )
    yield "a key of another stage", Call(who, "kms:CreateKey", "*", {"aws:RequestTag/stage": "stage"})
    yield (
        "another stage's alias",
        Call(who, "kms:UpdateAlias", f"arn:aws:kms:eu-central-1:{account}:alias/kilo/stage/tenant/acme"),
    )
    for key in ("backups", "tenant-keys--multi-acme"):
        for action in ("Decrypt", "Encrypt", "GenerateDataKey", "CreateGrant"):
            yield "use of a key", Call(who, f"kms:{action}", prod.keys[key])
    yield "events read", Call(who, "sqs:ReceiveMessage", prod.arn("sqs", "kilo-prod-registry-push"))
    image = prod.arn("ecr", settings.registry.repositories[0])
    yield "an image pushed", Call(who, "ecr:PutImage", image)
    yield "an image removed", Call(who, "ecr:BatchDeleteImage", image)
    yield "a protected repository ended", Call(who, "ecr:DeleteRepository", image)


def test_the_providers_calls_are_allowed(world: World, settings: Settings, deployer: str) -> None:
    every = list(calls(settings, deployer))
    asked = {call.action for call in every}
    assert {"s3:PutReplicationConfiguration", "iam:CreateRole", "ecr:PutLifecyclePolicy"} <= asked
    refused = {(each.action, each.resource) for each in every if not world.decide(each).allowed}
    assert not refused
    assert len(every) > 150


def test_no_attack_goes_through(
    world: World, settings: Settings, deployer: str, preview: str, drift: str
) -> None:
    through = [
        (what, call.action, call.resource)
        for who in (deployer, preview, drift)
        for what, call in attacks(settings, who)
        if world.decide(call).allowed
    ]
    assert not through


def test_what_processes_do_is_within_their_boundary(settings: Settings) -> None:
    prod = stage("prod")
    bound = World(resources={})
    outside: list[tuple[str, str]] = []
    for call in made(prod):
        if not call.principal.startswith(f"arn:aws:iam::{prod.account}:role/kilo-"):
            continue
        # KMS' answer stands in the key's policy; here the boundary alone is asked.
        bound.identities[call.principal] = [dict(boundary_policy(settings))]
        if call.action.startswith("kms:"):
            anybody: dict[str, Any] = {"Sid": "All", "Effect": "Allow", "Principal": {"AWS": prod.account}}
            document = {**anybody, "Action": "kms:*", "Resource": "*"}
            bound.resources[call.resource] = {"Version": "2012-10-17", "Statement": [document]}
        if not bound.decide(call).allowed:
            outside.append((call.action, call.resource))
    assert not outside
    (role,) = {prod.role("ingest")}
    bound.identities[role] = [dict(boundary_policy(settings))]
    for action in ("iam:CreateRole", "iam:PutRolePolicy", "s3:PutBucketPolicy", "kms:PutKeyPolicy"):
        assert not bound.decide(Call(role, action, "*")).allowed


@pytest.mark.parametrize("name", ["dev", "stage", "prod"])
def test_they_fit_into_a_role(name: str) -> None:
    settings = read_stage_file(ROOT / f"Pulumi.{name}.yaml")
    for rights in (deployer_policies, preview_policies, drift_policies):
        policies = rights(settings, STATE)
        assert sum(map(size_of, policies.values())) <= IAM_INLINE_CHARACTERS
    assert size_of(boundary_policy(settings)) <= 6_144
