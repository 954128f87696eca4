"""Registries: a tag, once pushed, stays what it is, and what is pushed is scanned.

Tags may be mutable where the mirror alone writes, which moves none but those that list an image's referrers.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.policy.rule import Resource, Rule

ECR_REPOSITORY = "aws:ecr/repository:Repository"
ARTIFACT_REGISTRY = "gcp:artifactregistry/repository:Repository"
ARTIFACT_REGISTRY_MEMBER = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"

WRITTEN_BY, WRITER = "written-by", "registry-mirror"
"""The label by which MirroredRegistry says that the mirror alone writes."""

_WRITING = frozenset(
    f"roles/artifactregistry.{name}" for name in ("writer", "repoAdmin", "admin", "createOnPushWriter")
)
_PEOPLE = ("user:", "group:", "domain:")


def _ecr(resource: Resource) -> Iterator[str]:
    if resource.properties.get("imageTagMutability") != "IMMUTABLE":
        yield "a tag can be moved to another image; set image_tag_mutability='IMMUTABLE'"
    if not (resource.properties.get("imageScanningConfiguration") or {}).get("scanOnPush"):
        yield "images are not scanned; set scan_on_push=True"


def _artifact_registry(resource: Resource) -> Iterator[str]:
    properties = resource.properties
    mirrored = (properties.get("labels") or {}).get(WRITTEN_BY) == WRITER
    immutable = (properties.get("dockerConfig") or {}).get("immutableTags")
    if properties.get("format") == "DOCKER" and not immutable and not mirrored:
        yield (
            "a tag can be moved to another image; set docker_config.immutable_tags=True, "
            f"or label it {WRITTEN_BY}={WRITER} if the mirror alone writes to it"
        )


def _writers(resource: Resource) -> Iterator[str]:
    member = str(resource.properties.get("member", ""))
    if str(resource.properties.get("role")) in _WRITING and member.startswith(_PEOPLE):
        yield f"{member} can write to a registry; images come by the pipeline and the mirror alone"


RULES = (
    Rule("ecr-repository", "ECR tags are immutable and images scanned.", frozenset({ECR_REPOSITORY}), _ecr),
    Rule(
        "artifact-registry",
        "Artifact Registry tags are immutable, or the mirror's alone.",
        frozenset({ARTIFACT_REGISTRY}),
        _artifact_registry,
    ),
    Rule(
        "artifact-registry-writers",
        "No person writes to Artifact Registry.",
        frozenset({ARTIFACT_REGISTRY_MEMBER}),
        _writers,
    ),
)
