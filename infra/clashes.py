"""What two stages can't both have: names that are one for the world, an account or a registry.

A stage's own file can't tell; ``kilo check`` looks at all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from infra.settings import Settings


def clashes(stages: Mapping[str, Settings]) -> Iterator[str]:
    """Every clash between the stages, by file name: a line each."""
    for (file, one), (other_file, other) in combinations(stages.items(), 2):
        yield from _of_buckets(file, one, other_file, other)
        if one.aws.account_id == other.aws.account_id:
            yield from _of_an_account(file, one, other_file, other)


def _of_buckets(file: str, one: Settings, other_file: str, other: Settings) -> Iterator[str]:
    # S3 and Cloud Storage each have one namespace for all of their customers.
    for cloud, mine, theirs in (
        ("S3", _s3(one), _s3(other)),
        ("Cloud Storage", _gcs(one), _gcs(other)),
    ):
        taken = {bucket: path for path, bucket in theirs.items()}
        for path, bucket in mine.items():
            if bucket in taken:
                yield (
                    f"{file}: kilo:{path}: '{bucket}' is {other_file}'s kilo:{taken[bucket]} too, and a "
                    f"bucket of {cloud} is one for the world; call one of them otherwise"
                )


def _s3(settings: Settings) -> dict[str, str]:
    backups = settings.backups
    found = {"backups.primary.bucket": backups.primary.bucket, "audit.bucket": settings.audit.bucket}
    if backups.replica:
        found["backups.replica.bucket"] = backups.replica.bucket
    return found


def _gcs(settings: Settings) -> dict[str, str]:
    return {"backups.secondary.bucket": settings.backups.secondary.bucket}


def _of_an_account(file: str, one: Settings, other_file: str, other: Settings) -> Iterator[str]:
    if one.aws.region != other.aws.region:
        return
    if one.registry.replica_regions and other.registry.replica_regions:
        yield (
            f"{file}: kilo:registry.replica_regions: ECR has one replication setting for a registry, and "
            f"{other_file} sets that of account {one.aws.account_id} in {one.aws.region} too; let one stage "
            "name the regions, and leave them out in the other"
        )
    for name in sorted(set(one.registry.every_repository) & set(other.registry.every_repository)):
        yield (
            f"{file}: kilo:registry.repositories: '{name}' is {other_file}'s too, in the same account and "
            "region; call one of them otherwise, or deploy them to different accounts or regions"
        )
