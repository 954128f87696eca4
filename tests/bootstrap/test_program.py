"""What the bootstrap makes for a stage, who may use it, and what it says of files that don't fit together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bootstrap.__main__ import deploy
from bootstrap.github import ISSUER
from bootstrap.settings import parse
from infra.configuration import read_stage_file
from infra.settings import Settings
from infra.target.prerequisites import GOOGLE_APIS
from kilo.errors import BadInput
from tests.bootstrap.stage_file import ACCOUNT, BOUNDARY, OWN, ROOT, config, write
from tests.components.recorder import Recording, record
from tests.infra.access.evaluator import ROLES, Call, World

PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"
DEPLOYER, PREVIEW, DRIFT = (
    f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("deployer", "preview", "drift")
)
POOL = "projects/1/locations/global/workloadIdentityPools/kilo-dev-github"
ANSWERS = {
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": {"name": POOL},
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": {"name": f"{POOL}/providers/github"},
    "gcp:serviceaccount/account:Account": {"name": "n", "email": "e", "member": "serviceAccount:e"},
}
KEY, BUCKET = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/state", "arn:aws:s3:::kilo-dev-state-eu"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return read_stage_file(write(tmp_path_factory.mktemp("stage"), config()))


@pytest.fixture(scope="module")
def program(settings: Settings) -> Recording:
    return record(lambda: deploy(settings, parse(OWN, settings)), stack="dev", answers=ANSWERS)


@pytest.fixture(scope="module")
def world(program: Recording) -> World:
    """Every policy that it renders, with AWS' own ARNs."""
    world = World()

    def read(text: str) -> dict[str, Any]:
        text = text.replace("arn:aws:iam:::", f"arn:aws:iam::{ACCOUNT}:role/")
        issuer = program.of("aws:iam/openIdConnectProvider:OpenIdConnectProvider")[0].name
        return json.loads(text.replace(f"arn:aws:iam::{ACCOUNT}:role/{issuer}", PROVIDER))

    for role in program.of("aws:iam/role:Role"):
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role.inputs['name']}"
        world.resources[arn] = read(role.inputs["assumeRolePolicy"])
    for policy in program.of("aws:iam/rolePolicy:RolePolicy"):
        role = f"arn:aws:iam::{ACCOUNT}:role/{policy.inputs['role']}"
        world.identities.setdefault(role, []).append(read(policy.inputs["policy"]))
    world.resources[KEY] = read(program.one("aws:kms/key:Key").inputs["policy"])
    world.resources[BUCKET] = read(program.one("aws:s3/bucketPolicy:BucketPolicy").inputs["policy"])
    return world


def taken(role: str, subject: str, audience: str = "sts.amazonaws.com", by: str = PROVIDER) -> Call:
    return Call(
        by, "sts:AssumeRoleWithWebIdentity", role, {f"{ISSUER}:sub": subject, f"{ISSUER}:aud": audience}
    )


def test_a_workflow_takes_its_role_in_its_environment_alone(world: World) -> None:
    repository, own = "repo:kilo-platform/kilo", {DEPLOYER: "dev", PREVIEW: "preview-dev", DRIFT: "drift-dev"}
    others = (
        "prod",
        "preview-prod",
        "drift-prod",
        "ramps-dev",
        "previews-dev",
        "fle-rotate-dev",
        "release",
        "*",
    )
    for role, environment in own.items():
        subject = f"{repository}:environment:{environment}"
        assert world.decide(taken(role, subject)).allowed
        for call in (
            *(
                taken(role, f"{repository}:environment:{each}")
                for each in {*own.values(), *others} - {environment}
            ),
            taken(role, f"{repository}:pull_request"),
            taken(role, f"{repository}:ref:refs/heads/main"),
            taken(role, subject.replace("kilo-platform/kilo", "kilo-platform/kilo-fork")),
            taken(role, subject.replace("kilo-platform/kilo", "somebody/else")),
            taken(role, subject, "vault"),
            taken(role, subject, by=PROVIDER.replace("token.", "other.")),
            *(Call(other, "sts:AssumeRole", role) for other in own),
        ):
            assert not world.decide(call).allowed, call


def test_who_deploys_writes_the_state_and_who_previews_or_looks_for_drift_reads_it(world: World) -> None:
    state = f"{BUCKET}/.pulumi/stacks/kilo/dev.json"
    for who, writes in ((DEPLOYER, True), (PREVIEW, False), (DRIFT, False)):
        assert world.decide(Call(who, "s3:GetObject", state)).allowed
        assert world.decide(Call(who, "kms:Decrypt", KEY)).allowed
        for action, what in (("s3:PutObject", state), ("kms:Encrypt", KEY), ("kms:GenerateDataKey", KEY)):
            assert world.decide(Call(who, action, what)).allowed is writes, (who, action)
        plain = {"aws:SecureTransport": "false"}
        assert not world.decide(Call(who, "s3:GetObject", state, plain)).allowed
        for action in ("PutKeyPolicy", "ScheduleKeyDeletion", "DisableKey", "CreateGrant"):
            assert not world.decide(Call(who, f"kms:{action}", KEY)).allowed
        for action in ("PutBucketPolicy", "DeleteBucket", "PutBucketVersioning", "PutLifecycleConfiguration"):
            assert not world.decide(Call(who, f"s3:{action}", BUCKET)).allowed
    administrator = f"arn:aws:iam::{ACCOUNT}:role/Admin"
    world.identities[administrator] = [
        {
            "Version": "2012-10-17",
            "Statement": [{"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}],
        }
    ]
    assert world.decide(Call(administrator, "kms:PutKeyPolicy", KEY)).allowed
    assert not world.decide(Call(administrator, "kms:Decrypt", KEY)).allowed


def test_the_state_can_be_had_back_and_is_nobody_elses(program: Recording) -> None:
    versioning = program.one("aws:s3/bucketVersioning:BucketVersioning").inputs
    assert versioning["versioningConfiguration"]["status"] == "Enabled"
    (rule,) = program.one(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    ).inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms"
    block = program.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").inputs
    assert [block[key] for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls")] == [True] * 3
    assert program.one("aws:kms/key:Key").inputs["enableKeyRotation"] is True


def test_no_secret_is_in_it(program: Recording, settings: Settings) -> None:
    secret = program.one("aws:secretsmanager/secret:Secret")
    assert secret.inputs["name"] == settings.database.url_secret_id
    assert not program.of("aws:secretsmanager/secretVersion:SecretVersion")
    assert not program.outputs_hold_secrets


def test_google_believes_the_repository_and_each_environment_has_its_own_account(program: Recording) -> None:
    provider = program.one("gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider").inputs
    assert provider["attributeCondition"] == "assertion.repository == 'kilo-platform/kilo'"
    accounts = {
        each.urn: each.inputs["accountId"] for each in program.of("gcp:serviceaccount/account:Account")
    }
    believed = [
        (accounts[account], each.inputs["member"].rpartition("/subject/")[2])
        for each in program.of("gcp:serviceaccount/iAMMember:IAMMember")
        for account in each.dependencies & accounts.keys()
    ]
    repository = "repo:kilo-platform/kilo:environment"
    assert sorted(believed) == [
        ("kilo-dev-deploy", f"{repository}:dev"),
        ("kilo-dev-drift", f"{repository}:drift-dev"),
        ("kilo-dev-preview", f"{repository}:preview-dev"),
    ]
    apis = {each.inputs["service"] for each in program.of("gcp:projects/service:Service")}
    # The nightly look for drift asks for what no program declares (.ci/undeclared).
    assert apis == {*GOOGLE_APIS, "cloudasset.googleapis.com"}


def test_in_google_cloud_who_previews_reads_images_and_who_looks_for_drift_sees_how_all_is_set_up(
    program: Recording,
) -> None:
    may = {
        key: {
            permission
            for each in program.of("gcp:projects/iAMMember:IAMMember")
            if each.name.startswith(f"google-{key}-")
            for permission in ROLES[each.inputs["role"]]
        }
        for key in ("preview", "drift")
    }
    parity = {
        "artifactregistry.repositories.downloadArtifacts",
        "artifactregistry.repositories.get",
        "resourcemanager.projects.get",
    }
    refresh = {
        "artifactregistry.repositories.getIamPolicy",
        "storage.buckets.get",
        "storage.buckets.getIamPolicy",
    }
    assert parity <= may["preview"]
    assert parity | refresh | {"cloudasset.assets.searchAllResources"} <= may["drift"]
    assert not {
        permission for permission in may["preview"] if permission.startswith(("storage.", "cloudasset."))
    }
    for permissions in may.values():
        assert "storage.objects.get" not in permissions
        verbs = {permission.rpartition(".")[2] for permission in permissions}
        assert all(re.match(r"get|list|search|download", verb) for verb in verbs), verbs


def test_it_exports_what_the_repositorys_settings_ask_for(program: Recording) -> None:
    wanted = {"AWS_ROLE_ARN", "AWS_REGION", "GCP_PROVIDER", "GCP_ACCOUNT", "STATE_BACKEND"}
    environments = program.outputs["github_environments"]
    assert environments.keys() == {"dev", "preview-dev", "drift-dev"}
    assert all(values.keys() == wanted for values in environments.values())
    daily = (ROOT / "docs" / "daily-use.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in daily for name in wanted)


@pytest.mark.parametrize(
    ("change", "own", "said"),
    [
        ({"key_auditors": []}, {}, "drift_role: keys' policies must name it"),
        (
            {"key_auditors": [DRIFT, PREVIEW]},
            {},
            f"preview_role: a branch's own code runs with it, and it asks for no key; take {PREVIEW} out of",
        ),
        (
            {"key_auditors": [PREVIEW]},
            {"kilo-bootstrap:drift_role": "preview"},
            "drift_role: 'preview' is preview_role's name; each environment has a role of its own",
        ),
        (
            {"permissions_boundary": None},
            {},
            f"set kilo:aws.permissions_boundary of Pulumi.dev.yaml to {BOUNDARY}",
        ),
        ({}, {"kilo-bootstrap:repository": "kilo"}, "kilo-bootstrap:repository"),
        ({}, {"aws:region": "eu-west-1"}, "aws:region: eu-west-1 is not the stage's; use eu-central-1"),
        ({}, {"kilo-bootstrap:statebucket": "x"}, "kilo-bootstrap:statebucket"),
        (
            {},
            {"kilo-bootstrap:preview_role": "kilo-dev-look"},
            "use a name without kilo-dev-",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(
    change: dict[str, Any], own: dict[str, str], said: str, tmp_path: Path
) -> None:
    found = config()
    found["kilo:aws"] |= change
    with pytest.raises(BadInput) as caught:
        parse({**OWN, **own}, read_stage_file(write(tmp_path, found)))
    assert said in str(caught.value)


@pytest.mark.parametrize("stage", ["stage", "prod"])
def test_the_files_of_the_checkout_go_together(stage: str) -> None:
    from ruamel.yaml import YAML

    own = YAML(typ="safe").load(ROOT / "bootstrap" / f"Pulumi.{stage}.yaml")["config"]
    parsed = parse(own, read_stage_file(ROOT / f"Pulumi.{stage}.yaml"))
    assert (parsed.deployer_role, parsed.preview_role, parsed.drift_role) == ("deployer", "preview", "drift")
