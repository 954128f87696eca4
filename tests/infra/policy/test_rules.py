"""Each rule fires on what it forbids and is silent on what it asks for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import infra.policy
from infra.policy import access, keys, protection, registries, storage, workloads
from infra.policy.__main__ import RULES, STACK_RULES
from infra.policy.rule import Resource, Rule

ADMINISTRATOR = "arn:aws:iam::123456789012:role/key-administrator"
USER = "arn:aws:iam::123456789012:role/ingest"


def key_policy(**use: Any) -> str:
    statement = {
        "Sid": "Use",
        "Effect": "Allow",
        "Principal": {"AWS": USER},
        "Action": ["kms:Decrypt"],
        "Resource": "*",
        "Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "acme"}},
    }
    administration = {
        "Sid": "Administer",
        "Effect": "Allow",
        "Principal": {"AWS": [ADMINISTRATOR]},
        "Action": ["kms:ScheduleKeyDeletion"],
        "Resource": "*",
    }
    return json.dumps({"Statement": [administration, {**statement, **use}]})


def identity_policy(**statement: Any) -> dict[str, Any]:
    allowed = {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::backups/*"]}
    return {"policy": json.dumps({"Statement": [{**allowed, **statement}]})}


def deployment(change: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    container = {
        "name": "ingest",
        "image": "registry.example.com/kilo:1.0.0",
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "livenessProbe": {"httpGet": {"path": "/livez", "port": 8080}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}},
    }
    labels = dict.fromkeys(workloads.LABELS, "kilo")
    pod = {"automountServiceAccountToken": False, "containers": [container]}
    change(pod)
    return {
        "metadata": {"name": "ingest", "labels": labels},
        "spec": {"template": {"spec": copy.deepcopy(pod)}},
    }


def container_without(*path: str) -> dict[str, Any]:
    def change(pod: dict[str, Any]) -> None:
        place = pod["containers"][0]
        for name in path[:-1]:
            place = place[name]
        del place[path[-1]]

    return deployment(change)


def container_with(**fields: Any) -> dict[str, Any]:
    return deployment(lambda pod: pod["containers"][0].update(fields))


BLOCKED: dict[str, Any] = dict.fromkeys(
    ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True
)
TLS_ONLY = {
    "policy": json.dumps(
        {"Statement": [{"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}
    )
}
GCS = {
    "uniformBucketLevelAccess": True,
    "publicAccessPrevention": "enforced",
    "retentionPolicy": {"retentionPeriod": 86400},
}
ECR = {"imageTagMutability": "IMMUTABLE", "imageScanningConfiguration": {"scanOnPush": True}}
S3_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
S3_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
MEMBER = "gcp:projects/iAMMember:IAMMember"

SILENT: list[tuple[str, str, dict[str, Any]]] = [
    ("s3-object-lock", storage.S3_BUCKET, {"objectLockEnabled": True}),
    ("s3-public-access", S3_BLOCK, BLOCKED),
    ("s3-tls-only", S3_POLICY, TLS_ONLY),
    ("gcs-bucket", storage.GCS_BUCKET, GCS),
    ("kms-key-rotation", keys.AWS_KEY, {"enableKeyRotation": True}),
    ("kms-key-rotation", keys.AWS_KEY, {"customerMasterKeySpec": "ECC_NIST_P256"}),
    ("kms-deletion-window", keys.AWS_KEY, {"deletionWindowInDays": 30}),
    ("kms-key-policy", keys.AWS_KEY, {"policy": key_policy()}),
    ("kms-key-policy", keys.AWS_KEY, {"policy": key_policy(Action=["kms:Sign"], Condition={})}),
    ("gcp-key-rotation", keys.GCP_KEY, {"rotationPeriod": "31536000s"}),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy()),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy(Action="ecr:GetAuthorizationToken", Resource="*")),
    (
        "gcp-least-privilege",
        MEMBER,
        {"role": "roles/artifactregistry.writer", "member": "serviceAccount:mirror"},
    ),
    ("ecr-repository", registries.ECR_REPOSITORY, ECR),
    (
        "artifact-registry",
        registries.ARTIFACT_REGISTRY,
        {"format": "DOCKER", "dockerConfig": {"immutableTags": True}},
    ),
    (
        "artifact-registry",
        registries.ARTIFACT_REGISTRY,
        {"format": "DOCKER", "labels": {"written-by": "registry-mirror"}},
    ),
    (
        "artifact-registry-writers",
        registries.ARTIFACT_REGISTRY_MEMBER,
        {"role": "roles/artifactregistry.writer", "member": "serviceAccount:mirror"},
    ),
    (
        "artifact-registry-writers",
        registries.ARTIFACT_REGISTRY_MEMBER,
        {"role": "roles/artifactregistry.reader", "member": "group:developers"},
    ),
    ("workload-hardened", DEPLOYMENT, deployment()),
    ("workload-resources", DEPLOYMENT, deployment()),
    ("workload-probes", DEPLOYMENT, deployment()),
    ("workload-images", DEPLOYMENT, deployment()),
    ("workload-images", DEPLOYMENT, container_with(image="localhost:5000/kilo@sha256:" + "0" * 64)),
    ("workload-labels", DEPLOYMENT, deployment()),
]

FIRES: list[tuple[str, str, dict[str, Any], str]] = [
    ("s3-object-lock", storage.S3_BUCKET, {}, "object lock is off"),
    ("s3-public-access", S3_BLOCK, {**BLOCKED, "ignorePublicAcls": False}, "ignorePublicAcls"),
    ("s3-tls-only", S3_POLICY, {"policy": json.dumps({"Statement": [{"Effect": "Allow"}]})}, "without TLS"),
    ("gcs-bucket", storage.GCS_BUCKET, {**GCS, "uniformBucketLevelAccess": False}, "object ACLs"),
    ("gcs-bucket", storage.GCS_BUCKET, {**GCS, "publicAccessPrevention": "inherited"}, "public"),
    ("gcs-bucket", storage.GCS_BUCKET, {**GCS, "retentionPolicy": None}, "retention_policy"),
    ("kms-key-rotation", keys.AWS_KEY, {}, "never rotated"),
    ("kms-deletion-window", keys.AWS_KEY, {"deletionWindowInDays": 3}, "too short"),
    ("kms-deletion-window", keys.AWS_KEY, {}, "left to the provider"),
    ("kms-key-policy", keys.AWS_KEY, {}, "default key policy"),
    ("kms-key-policy", keys.AWS_KEY, {"policy": key_policy(Action="kms:*")}, "wildcard"),
    ("kms-key-policy", keys.AWS_KEY, {"policy": key_policy(Principal="*")}, "everybody"),
    ("kms-key-policy", keys.AWS_KEY, {"policy": key_policy(Condition={})}, "any encryption context"),
    (
        "kms-key-policy",
        keys.AWS_KEY,
        {"policy": key_policy(Principal={"AWS": ADMINISTRATOR})},
        "both administers and uses",
    ),
    ("gcp-key-rotation", keys.GCP_KEY, {}, "never rotated"),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy(Action=["s3:*"]), "allows s3:*"),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy(Resource="*"), "on every resource"),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy(Resource=["arn:aws:s3:::*-backups/*"]), "wildcard"),
    ("iam-no-wildcard", ROLE_POLICY, identity_policy(NotAction="iam:*"), "all but what it names"),
    (
        "gcp-least-privilege",
        MEMBER,
        {"role": "roles/editor", "member": "serviceAccount:mirror"},
        "basic role",
    ),
    ("gcp-least-privilege", MEMBER, {"role": "roles/storage.objectViewer", "member": "allUsers"}, "internet"),
    ("no-long-lived-credentials", "aws:iam/accessKey:AccessKey", {}, "long-lived"),
    ("ecr-repository", registries.ECR_REPOSITORY, {**ECR, "imageTagMutability": "MUTABLE"}, "moved"),
    ("ecr-repository", registries.ECR_REPOSITORY, {"imageTagMutability": "IMMUTABLE"}, "not scanned"),
    ("artifact-registry", registries.ARTIFACT_REGISTRY, {"format": "DOCKER"}, "moved"),
    (
        "artifact-registry",
        registries.ARTIFACT_REGISTRY,
        {"format": "DOCKER", "labels": {"written-by": "somebody"}},
        "moved",
    ),
    (
        "artifact-registry-writers",
        registries.ARTIFACT_REGISTRY_MEMBER,
        {"role": "roles/artifactregistry.repoAdmin", "member": "user:eve@example.com"},
        "write to a registry",
    ),
    ("workload-hardened", DEPLOYMENT, deployment(lambda pod: pod.update(hostNetwork=True)), "hostNetwork"),
    (
        "workload-hardened",
        DEPLOYMENT,
        deployment(lambda pod: pod.pop("automountServiceAccountToken")),
        "Kubernetes API",
    ),
    ("workload-hardened", DEPLOYMENT, container_without("securityContext", "runAsNonRoot"), "root"),
    (
        "workload-hardened",
        DEPLOYMENT,
        container_without("securityContext", "readOnlyRootFilesystem"),
        "readOnlyRootFilesystem",
    ),
    (
        "workload-hardened",
        DEPLOYMENT,
        container_without("securityContext", "allowPrivilegeEscalation"),
        "gain privileges",
    ),
    ("workload-hardened", DEPLOYMENT, container_without("securityContext", "capabilities"), "drop ALL"),
    ("workload-hardened", DEPLOYMENT, container_without("securityContext", "seccompProfile"), "seccomp"),
    ("workload-resources", DEPLOYMENT, container_without("resources", "limits"), "limits.memory"),
    ("workload-probes", DEPLOYMENT, container_without("livenessProbe"), "livenessProbe"),
    ("workload-images", DEPLOYMENT, container_with(image="localhost:5000/kilo"), "can change"),
    ("workload-images", DEPLOYMENT, container_with(image="kilo:latest"), "can change"),
    ("workload-labels", DEPLOYMENT, {**deployment(), "metadata": {}}, "app.kubernetes.io/name"),
]


def rule_named(name: str) -> Rule:
    return next(rule for rule in RULES if rule.name == name)


@pytest.mark.parametrize(("name", "type_", "properties"), SILENT)
def test_a_rule_is_silent_on_what_it_asks_for(name: str, type_: str, properties: dict[str, Any]) -> None:
    rule = rule_named(name)
    assert type_ in rule.types
    assert list(rule.check(Resource(type_, "subject", properties))) == []


@pytest.mark.parametrize(("name", "type_", "properties", "message"), FIRES)
def test_a_rule_fires_on_what_it_forbids(
    name: str, type_: str, properties: dict[str, Any], message: str
) -> None:
    rule = rule_named(name)
    assert type_ in rule.types
    found = list(rule.check(Resource(type_, "subject", properties)))
    assert len(found) == 1
    assert message in found[0]
    assert ";" in found[0], "a message says what is wrong and how to mend it"


@pytest.mark.parametrize("protect", [True, False])
def test_what_cannot_be_made_again_is_protected(protect: bool) -> None:
    rule = rule_named("protected")
    for type_ in protection.IRREPLACEABLE:
        found = list(rule.check(Resource(type_, "subject", {}, protect=protect)))
        assert bool(found) is not protect


@pytest.mark.parametrize(
    ("type_", "option"),
    [
        (storage.S3_BUCKET, "forceDestroy"),
        (storage.GCS_BUCKET, "forceDestroy"),
        (registries.ECR_REPOSITORY, "forceDelete"),
    ],
)
def test_what_cannot_be_made_again_is_not_emptied_to_be_destroyed(type_: str, option: str) -> None:
    (message,) = rule_named("protected").check(Resource(type_, "subject", {option: True}, protect=True))
    assert message.startswith("force_de")


@pytest.mark.parametrize("name", ["advisory", "unprotected"])
def test_a_level_that_a_stage_can_choose_names_rules_that_there_are(name: str) -> None:
    levels = json.loads((Path(infra.policy.__path__[0]) / f"{name}.json").read_bytes())
    assert levels.keys() - {"all"} <= {rule.name for rule in RULES}
    assert set(levels.values()) <= {"mandatory", "advisory", "disabled"}


def bucket_with(companions: set[str]) -> list[Resource]:
    urn = "urn:pulumi:dev::kilo::aws:s3/bucket:Bucket::backups"
    return [
        Resource(storage.S3_BUCKET, "backups", {}, urn=urn),
        *(Resource(type_, "backups", {}, dependencies={"bucket": [urn]}) for type_ in companions),
    ]


def test_a_bucket_with_all_companions_is_complete() -> None:
    (rule,) = STACK_RULES
    assert list(rule.check(bucket_with(set(storage.COMPANIONS)))) == []


@pytest.mark.parametrize("forgotten", storage.COMPANIONS)
def test_a_forgotten_companion_of_a_bucket_is_named(forgotten: str) -> None:
    (rule,) = STACK_RULES
    ((urn, message),) = rule.check(bucket_with(set(storage.COMPANIONS) - {forgotten}))
    assert urn.endswith("::backups")
    assert forgotten.rpartition(":")[2] in message


def test_every_rule_is_tested_both_ways() -> None:
    # AccessKey has no right form, and protection is tested over all its types above.
    assert {rule.name for rule in RULES} - {"protected"} == {case[0] for case in FIRES}
    assert {rule.name for rule in RULES} - {"protected", "no-long-lived-credentials"} == {
        case[0] for case in SILENT
    }


def test_modules_define_no_rule_that_the_pack_leaves_out() -> None:
    modules = (storage, keys, access, registries, workloads, protection)
    assert len(RULES) == sum(len(module.RULES) for module in modules)
