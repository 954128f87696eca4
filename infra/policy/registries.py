"""Registries: a tag, once pushed, stays what it is, and what is pushed is scanned."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policy.rule import Resource, Rule

ECR_REPOSITORY = "aws:ecr/repository:Repository"
ARTIFACT_REGISTRY = "gcp:artifactregistry/repository:Repository"


def _ecr(resource: Resource) -> Iterator[str]:
    if resource.properties.get("imageTagMutability") != "IMMUTABLE":
        yield "a tag can be moved to another image; set image_tag_mutability='IMMUTABLE'"
    if not (resource.properties.get("imageScanningConfiguration") or {}).get("scanOnPush"):
        yield "images are not scanned; set scan_on_push=True"


def _artifact_registry(resource: Resource) -> Iterator[str]:
    if resource.properties.get("format") == "DOCKER" and not (
        resource.properties.get("dockerConfig") or {}
    ).get("immutableTags"):
        yield "a tag can be moved to another image; set docker_config.immutable_tags=True"


RULES = (
    Rule("ecr-repository", "ECR tags are immutable and images scanned.", frozenset({ECR_REPOSITORY}), _ecr),
    Rule(
        "artifact-registry",
        "Artifact Registry tags are immutable.",
        frozenset({ARTIFACT_REGISTRY}),
        _artifact_registry,
    ),
)
