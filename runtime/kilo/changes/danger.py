"""Which changes a reviewer must see first, and why.

Dangerous is what can't be taken back: losing what a resource holds, shortening how long something is
kept, or opening who may reach it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kilo.changes.preview import Change, PropertyChange

HOLDS = {
    "aws:kms/key:Key": "everything encrypted under it becomes unreadable",
    "gcp:kms/cryptoKey:CryptoKey": "everything encrypted under it becomes unreadable",
    "aws:s3/bucket:Bucket": "its objects are lost",
    "gcp:storage/bucket:Bucket": "its objects are lost",
    "aws:ecr/repository:Repository": "its images are lost",
    "gcp:artifactregistry/repository:Repository": "its images are lost",
    "aws:sqs/queue:Queue": "its messages are lost",
    "random:index/randomPassword:RandomPassword": "the password changes for everything that uses it",
    "kubernetes:core/v1:PersistentVolumeClaim": "its volume is lost",
    "kubernetes:core/v1:Namespace": "everything in it is deleted",
    "kubernetes:apps/v1:StatefulSet": "its pods stop before the new ones start",
}
_KEPT_FOR = ("age", "days", "retentionPeriod", "retentionDays", "deletionWindowInDays", "noncurrentDays")
_ARGUMENT = re.compile(r"--[a-z-]*retention-days=([0-9]+)$")
_ACCESS = ("policy", "assumeRolePolicy", "role", "member")
_GUARDS = (
    "blockPublicAcls",
    "blockPublicPolicy",
    "ignorePublicAcls",
    "restrictPublicBuckets",
    "enableKeyRotation",
)


def dangers(change: Change) -> list[str]:
    """Why ``change`` is dangerous; empty when it is not."""
    return list(_of_resource(change)) + [
        reason for item in change.properties for reason in _of_property(item)
    ]


def _of_resource(change: Change) -> Iterator[str]:
    if change.operation in ("delete", "replace") and change.type in HOLDS:
        yield HOLDS[change.type]
    if change.operation in ("delete", "replace") and change.protected:
        yield "it is protected, so the deployment will be refused"


def _of_property(item: PropertyChange) -> Iterator[str]:
    name = item.path.rpartition(".")[2].partition("[")[0]
    if name in _KEPT_FOR and _shorter(item):
        yield f"{item.path} is shortened"
    before, after = (_ARGUMENT.match(str(value)) for value in (item.before, item.after))
    if before and after and _shorter(PropertyChange(name, before[1], after[1])):
        yield f"{item.after} is shorter than {item.before}"
    if name in _ACCESS:
        yield f"{item.path} changes who may reach it"
    if name in _GUARDS and item.before is True and item.after is not True:
        yield f"{item.path} is turned off"
    if name in ("forceDestroy", "forceDelete") and item.after is True:
        yield f"{item.path} is turned on: deleting it will take along what it holds"


def _shorter(item: PropertyChange) -> bool:
    if item.after is None:
        return item.before is not None
    try:
        return float(str(item.after)) < float(str(item.before))
    except ValueError:
        return False
