"""The mirrored registry: immutable, scanned, kept, and every push told."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.clouds.mirrored_registry import MirroredRegistry, MirroredRegistryArgs
from tests.components.recorder import Recording, record

POOL = "projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"


def registry(
    *, protect: bool = True, deployed_images: tuple[str, ...] = (), replica_regions: tuple[str, ...] = ()
) -> Recording:
    def program() -> None:
        made = MirroredRegistry(
            "registry",
            MirroredRegistryArgs(
                stage="dev",
                repositories=["shop/orders", "shop/payments"],
                google_project="kilo-dev",
                google_location="europe-west3",
                protect=protect,
                tags={},
                deployed_images=deployed_images,
                replica_regions=replica_regions,
            ),
        )
        identity = CloudIdentity(
            "mirror",
            CloudIdentityArgs(
                namespace="kilo",
                service_accounts=["mirror"],
                role_name="mirror",
                oidc_provider_arn="arn:aws:iam::1:oidc-provider/issuer",
                google_identity_provider=POOL,
            ),
        )
        made.allow_mirroring(identity, from_events=True)

    return record(program)


def document(recording: Recording, type_: str, name: str, field: str = "policy") -> dict[str, Any]:
    return json.loads(recording.one(type_, name).inputs[field])


def test_a_pushed_tag_stays_what_it_is_on_both_sides() -> None:
    recording = registry()
    for repository in recording.of("aws:ecr/repository:Repository"):
        assert repository.inputs["imageTagMutability"] == "IMMUTABLE"
        assert repository.inputs["imageScanningConfiguration"] == {"scanOnPush": True}
    mirror = recording.one("gcp:artifactregistry/repository:Repository").inputs
    # Fallback tags must move, and Artifact Registry knows no exceptions; the mirror moves no other tag.
    assert mirror["dockerConfig"] == {"immutableTags": False}
    assert mirror["labels"]["written-by"] == "registry-mirror"
    assert mirror["format"] == "DOCKER"


def test_registries_are_protected_and_keep_their_images() -> None:
    recording = registry()
    kinds = ("aws:ecr/repository:Repository", "gcp:artifactregistry/repository:Repository")
    for resource in [found for kind in kinds for found in recording.of(kind)]:
        assert resource.protect
        assert resource.retain_on_delete
        assert not resource.inputs.get("forceDelete")


def test_only_previews_expire() -> None:
    policy = document(registry(), "aws:ecr/lifecyclePolicy:LifecyclePolicy", "registry-shop/orders")
    *_, last = policy["rules"]
    assert last["selection"]["tagStatus"] == "tagged"
    assert last["selection"]["tagPatternList"] == ["preview-*"]


def test_releases_and_what_is_deployed_are_kept_before_anything_expires() -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    images = (f"{host}/shop/orders:preview-7", f"{host}/shop/payments:preview-8@sha256:{'a' * 64}")
    recording = registry(deployed_images=images)
    kept: dict[str, list[str]] = {}
    for name in ("shop/orders", "shop/payments"):
        policy = document(recording, "aws:ecr/lifecyclePolicy:LifecyclePolicy", f"registry-{name}")
        *keeping, last = sorted(policy["rules"], key=lambda rule: rule["rulePriority"])
        assert last["selection"]["tagPatternList"] == ["preview-*"]
        # An image that matches an earlier rule can't be expired by a later one.
        assert all(rule["selection"]["countNumber"] >= 36_500 for rule in keeping)
        kept[name] = [pattern for rule in keeping for pattern in rule["selection"]["tagPatternList"]]
    assert kept == {"shop/orders": ["v*", "preview-7"], "shop/payments": ["v*", "preview-8"]}


def test_replicas_are_immutable_too_and_copied_to_by_ecr_itself() -> None:
    recording = registry(replica_regions=("eu-west-1", "us-east-1"))
    repositories = recording.of("aws:ecr/repository:Repository")
    assert Counter(found.inputs.get("region") for found in repositories) == {
        None: 2,
        "eu-west-1": 2,
        "us-east-1": 2,
    }
    assert {found.inputs["imageTagMutability"] for found in repositories} == {"IMMUTABLE"}
    assert all(found.protect for found in repositories)
    replication = recording.one("aws:ecr/replicationConfiguration:ReplicationConfiguration")
    (rule,) = replication.inputs["replicationConfiguration"]["rules"]
    assert [destination["region"] for destination in rule["destinations"]] == ["eu-west-1", "us-east-1"]
    assert [one["filter"] for one in rule["repositoryFilters"]] == ["shop/orders", "shop/payments"]
    assert not registry().of("aws:ecr/replicationConfiguration:ReplicationConfiguration")


def test_the_queue_is_told_of_successful_pushes_to_mirrored_repositories() -> None:
    recording = registry()
    pattern = document(recording, "aws:cloudwatch/eventRule:EventRule", "registry-push", "eventPattern")
    assert pattern == {
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {
            "action-type": ["PUSH"],
            "result": ["SUCCESS"],
            "repository-name": ["shop/orders", "shop/payments"],
        },
    }
    target = recording.one("aws:cloudwatch/eventTarget:EventTarget").inputs
    assert target["arn"] == "arn:aws:sqs:::kilo-dev-registry-push"
    assert target["deadLetterConfig"] == {"arn": "arn:aws:sqs:::kilo-dev-registry-push-dead"}


def test_events_that_cannot_be_handled_end_in_the_dead_letter_queue() -> None:
    redrive = document(registry(), "aws:sqs/queue:Queue", "registry-push", "redrivePolicy")
    assert redrive["deadLetterTargetArn"] == "arn:aws:sqs:::kilo-dev-registry-push-dead"
    assert redrive["maxReceiveCount"] == 10


def test_only_the_rule_may_send_to_either_queue() -> None:
    recording = registry()
    for name, queue in (("registry-push", "registry-push"), ("registry-dead-letters", "registry-push-dead")):
        (statement,) = document(recording, "aws:sqs/queuePolicy:QueuePolicy", name)["Statement"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Resource"] == f"arn:aws:sqs:::kilo-dev-{queue}"
        assert statement["Condition"]["ArnEquals"] == {
            "aws:SourceArn": "arn:aws:cloudwatch:::kilo-dev-registry-push"
        }


def test_the_mirror_reads_here_and_writes_there() -> None:
    recording = registry()
    policy = document(recording, "aws:iam/rolePolicy:RolePolicy", "mirror-mirror")
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert "ecr:BatchGetImage" in allowed
    assert not {action for action in allowed if "Put" in action or "Upload" in action or "sqs:Send" in action}
    (parked,) = [found for found in policy["Statement"] if found["Sid"] == "CountParkedPushes"]
    assert parked["Action"] == ["sqs:GetQueueAttributes"]
    assert parked["Resource"] == ["arn:aws:sqs:::kilo-dev-registry-push-dead"]
    member = recording.one("gcp:artifactregistry/repositoryIamMember:RepositoryIamMember").inputs
    assert member["role"] == "roles/artifactregistry.writer"
    assert member["member"].startswith("principal://iam.googleapis.com/projects/1/")
