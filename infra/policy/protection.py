"""Protection: what can't be made again is not deleted by accident."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policy.keys import AWS_KEY, GCP_KEY
from infra.policy.registries import ARTIFACT_REGISTRY, ECR_REPOSITORY
from infra.policy.rule import Resource, Rule
from infra.policy.storage import GCS_BUCKET, S3_BUCKET

IRREPLACEABLE = frozenset({AWS_KEY, GCP_KEY, S3_BUCKET, GCS_BUCKET, ECR_REPOSITORY, ARTIFACT_REGISTRY})


def _protected(resource: Resource) -> Iterator[str]:
    if not resource.protect:
        yield "not protected, and what it holds can't be made again; set protect and retain_on_delete"
    if resource.properties.get("forceDestroy"):
        yield "force_destroy empties the bucket when it is destroyed; leave it out"
    if resource.properties.get("forceDelete"):
        yield "force_delete removes the images with the repository; leave it out"


RULES = (Rule("protected", "Keys, buckets and registries are protected.", IRREPLACEABLE, _protected),)
