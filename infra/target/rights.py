"""What may do in AWS who deploys a stage, who previews it, who looks for drift, and at most a process; pure.

The rights follow from the stage's file: its buckets, repositories, queues, roles, keys' aliases and its
secret, by name. The deployer gives rights away, so what it can give is bounded: it makes no role without the
stage's permissions boundary and takes none away, changes nothing but roles of the stage's names, and what is
in a bucket, in a secret or under a key is not its to read. Keys' own policies name it among their
administrators, so of KMS it needs here only what no key's policy can say.

A preview runs a branch's own code. Without a refresh the engine takes from its state what there is, so who
previews reads that and images, and not how things are set up. That is for who looks for drift, which the
default branch's code alone does.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.clouds.iam import Statement
from components.clouds.msk_access import msk_boundary
from components.clouds.registry_access import CONSUME_QUEUE, READ_PRIMARY
from components.clouds.secret_access import READ_SECRET, secret_arn
from infra import names
from infra.settings import Settings
from kilo.contract import SERVICE_CHART

Policies = Mapping[str, Mapping[str, Any]]
"""Policy documents by name."""

_LOOK_AT_BUCKET = (
    "s3:GetAccelerateConfiguration",
    "s3:GetBucketAcl",
    "s3:GetBucketCORS",
    "s3:GetBucketLocation",
    "s3:GetBucketLogging",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketOwnershipControls",
    "s3:GetBucketPolicy",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketRequestPayment",
    "s3:GetBucketTagging",
    "s3:GetBucketVersioning",
    "s3:GetBucketWebsite",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "s3:ListBucket",
    "s3:ListTagsForResource",
)
_CHANGE_BUCKET = (
    "s3:CreateBucket",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketOwnershipControls",
    "s3:PutBucketPolicy",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketTagging",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutReplicationConfiguration",
    "s3:TagResource",
    "s3:UntagResource",
)
_END_BUCKET = ("s3:DeleteBucket",)
_LOOK_AT_REPOSITORY = ("ecr:DescribeRepositories", "ecr:GetLifecyclePolicy", "ecr:ListTagsForResource")
_CHANGE_REPOSITORY = (
    "ecr:CreateRepository",
    "ecr:DeleteLifecyclePolicy",
    "ecr:PutImageScanningConfiguration",
    "ecr:PutImageTagMutability",
    "ecr:PutLifecyclePolicy",
    "ecr:TagResource",
    "ecr:UntagResource",
)
_END_REPOSITORY = ("ecr:DeleteRepository",)
_PUSH = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
_LOOK_AT_QUEUE = ("sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags")
_CHANGE_QUEUE = (
    "sqs:CreateQueue",
    "sqs:DeleteQueue",
    "sqs:SetQueueAttributes",
    "sqs:TagQueue",
    "sqs:UntagQueue",
)
_LOOK_AT_RULE = ("events:DescribeRule", "events:ListTagsForResource", "events:ListTargetsByRule")
_CHANGE_RULE = (
    "events:DeleteRule",
    "events:DisableRule",
    "events:EnableRule",
    "events:PutRule",
    "events:PutTargets",
    "events:RemoveTargets",
    "events:TagResource",
    "events:UntagResource",
)
_LOOK_AT_ROLE = (
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:ListRoleTags",
)
_CHANGE_BOUNDED_ROLE = ("iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy")
_CHANGE_ROLE = (
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateRole",
    "iam:UpdateRoleDescription",
)
_CHANGE_ALIAS = ("kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias")
_LOOK_AT_SECRET = ("secretsmanager:DescribeSecret",)
_READ_STATE = ("s3:GetObject",)
_WRITE_STATE = ("s3:DeleteObject", "s3:PutObject")


def boundary_arn(settings: Settings) -> str:
    """The policy that bounds what the stage's processes may do."""
    aws = settings.aws
    return aws.permissions_boundary or f"arn:aws:iam::{aws.account_id}:policy/kilo-{settings.stage}-boundary"


def deployer_policies(settings: Settings, state_bucket: str | None = None) -> Policies:
    """The policies of the role that deploys, each small enough to be one of a role's inline ones."""
    named = _Named(settings)
    keys = f"arn:aws:kms:*:{named.account}:key/*"
    bounded = {"StringEquals": {"iam:PermissionsBoundary": boundary_arn(settings)}}
    tagged = {"StringEquals": {"aws:RequestTag/stage": settings.stage}}
    ends = [] if settings.protect else [Statement("EndBuckets", _END_BUCKET, named.buckets)]
    gone = [] if settings.protect else [Statement("EndRepositories", _END_REPOSITORY, named.repositories)]
    return {
        "stores": _document(
            Statement("LookAtBuckets", _LOOK_AT_BUCKET, named.buckets),
            Statement("ChangeBuckets", _CHANGE_BUCKET, named.buckets),
            *ends,
        ),
        "registries": _document(
            Statement("LookAtRepositories", _LOOK_AT_REPOSITORY, named.repositories),
            Statement("ChangeRepositories", _CHANGE_REPOSITORY, named.repositories),
            *gone,
            Statement("SignIn", ["ecr:GetAuthorizationToken"], ["*"]),
            Statement("ReadImages", READ_PRIMARY, named.repositories),
            Statement("PushTheChart", _PUSH, [named.repository(SERVICE_CHART)]),
            Statement("Copy", ["ecr:DescribeRegistry", "ecr:PutReplicationConfiguration"], ["*"]),
            Statement("LookAtQueues", _LOOK_AT_QUEUE, named.queues),
            Statement("ChangeQueues", _CHANGE_QUEUE, named.queues),
            Statement("LookAtRules", _LOOK_AT_RULE, named.rules),
            Statement("ChangeRules", _CHANGE_RULE, named.rules),
        ),
        "roles": _document(
            Statement("LookAtRoles", _LOOK_AT_ROLE, [named.roles]),
            Statement("ChangeBoundedRoles", _CHANGE_BOUNDED_ROLE, [named.roles], bounded),
            Statement("ChangeRoles", _CHANGE_ROLE, [named.roles]),
            Statement(
                "LetS3Copy",
                ["iam:PassRole"],
                [named.role("backup-replication")],
                {"StringEquals": {"iam:PassedToService": "s3.amazonaws.com"}},
            ),
        ),
        "keys": _document(
            # A key that is made has no policy yet; from then on its own decides.
            Statement("MakeKeys", ["kms:CreateKey"], ["*"], tagged),
            Statement("TagKeysThatAreMade", ["kms:TagResource"], [keys], tagged),
            Statement("ListAliases", ["kms:ListAliases"], ["*"]),
            Statement("NameKeys", _CHANGE_ALIAS, [named.aliases]),
            # `kilo check --cloud` looks whether it has a value.
            Statement("LookAtTheDatabasesUrl", _LOOK_AT_SECRET, [named.secret]),
            Statement("FindTheCluster", ["eks:DescribeCluster"], [named.clusters]),
        ),
        **_state(state_bucket, _READ_STATE + _WRITE_STATE),
    }


def preview_policies(settings: Settings, state_bucket: str | None = None) -> Policies:
    """The policies of the role that previews without a refresh: it changes nothing and sees no resource."""
    named = _Named(settings)
    return {
        "look": _document(
            # Whether both registries hold the same of what a plan would run (.ci/parity).
            Statement("SignIn", ["ecr:GetAuthorizationToken"], ["*"]),
            Statement("ReadImages", READ_PRIMARY, named.repositories),
            Statement("FindTheCluster", ["eks:DescribeCluster"], [named.clusters]),
        ),
        **_state(state_bucket, _READ_STATE),
    }


def drift_policies(settings: Settings, state_bucket: str | None = None) -> Policies:
    """The policies of the role that looks for drift: it sees how all is set up, and changes nothing."""
    named = _Named(settings)
    return {
        "look": _document(
            Statement("LookAtBuckets", _LOOK_AT_BUCKET, named.buckets),
            Statement("LookAtRepositories", _LOOK_AT_REPOSITORY, named.repositories),
            Statement("LookAtRegistry", ["ecr:DescribeRegistry"], ["*"]),
            Statement("LookAtQueues", _LOOK_AT_QUEUE, named.queues),
            Statement("LookAtRules", _LOOK_AT_RULE, named.rules),
            Statement("LookAtRoles", _LOOK_AT_ROLE, [named.roles]),
            Statement("ListAliases", ["kms:ListAliases"], ["*"]),
            Statement("FindTheCluster", ["eks:DescribeCluster"], [named.clusters]),
            # What carries the stage's tags, and perhaps no program declares (.ci/undeclared).
            Statement("FindByTag", ["tag:GetResources"], ["*"]),
        ),
        **_state(state_bucket, _READ_STATE),
    }


def merged(policies: Policies) -> Mapping[str, Any]:
    """All of a role's policies as one document."""
    return {
        "Version": "2012-10-17",
        "Statement": [statement for each in policies.values() for statement in each["Statement"]],
    }


def boundary_policy(settings: Settings) -> Mapping[str, Any]:
    """What the platform's processes may have at most: the rights of all of them, and none over rights."""
    named = _Named(settings)
    objects = [f"{bucket}/*" for bucket in named.buckets]
    kafka = settings.bus.msk_cluster
    return _document(
        Statement(
            "Buckets",
            (
                "s3:GetBucketObjectLockConfiguration",
                "s3:GetReplicationConfiguration",
                "s3:ListBucket",
                "s3:ListBucketVersions",
            ),
            named.buckets,
        ),
        Statement(
            "Objects",
            (
                "s3:AbortMultipartUpload",
                "s3:GetObject",
                "s3:GetObjectLegalHold",
                "s3:GetObjectRetention",
                "s3:GetObjectVersion",
                "s3:GetObjectVersionAcl",
                "s3:GetObjectVersionForReplication",
                "s3:GetObjectVersionTagging",
                "s3:PutObject",
                "s3:ReplicateObject",
                "s3:ReplicateTags",
            ),
            objects,
        ),
        Statement(
            "Keys",
            ("kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GetPublicKey", "kms:Sign"),
            [f"arn:aws:kms:*:{named.account}:key/*"],
        ),
        Statement("SignIn", ["ecr:GetAuthorizationToken"], ["*"]),
        Statement("Images", READ_PRIMARY, named.repositories),
        Statement("Queues", CONSUME_QUEUE, named.queues),
        Statement("DatabaseUrl", READ_SECRET, [named.secret]),
        *([msk_boundary(kafka, names.KAFKA_TOPIC)] if kafka else []),
    )


class _Named:
    """The ARNs of what a stage's file names."""

    def __init__(self, settings: Settings) -> None:
        aws, backups, stage = settings.aws, settings.backups, settings.stage
        self.account = aws.account_id
        self._regions = (aws.region, *settings.registry.replica_regions)
        self._stage = stage
        self._region = aws.region
        buckets = [backups.primary.bucket, settings.audit.bucket]
        if backups.replica:
            buckets.append(backups.replica.bucket)
        self.buckets = [f"arn:aws:s3:::{bucket}" for bucket in buckets]
        self.repositories = [
            self.repository(name, region)
            for region in self._regions
            for name in settings.registry.every_repository
        ]
        self.queues = [f"arn:aws:sqs:{aws.region}:{self.account}:kilo-{stage}-registry-*"]
        self.rules = [f"arn:aws:events:{aws.region}:{self.account}:rule/kilo-{stage}-registry-*"]
        self.roles = self.role("*")
        self.aliases = f"arn:aws:kms:*:{self.account}:alias/kilo/{stage}/*"
        self.secret = secret_arn(aws.region, self.account, settings.database.url_secret_id)
        self.clusters = f"arn:aws:eks:{aws.region}:{self.account}:cluster/*"

    def repository(self, name: str, region: str | None = None) -> str:
        return f"arn:aws:ecr:{region or self._region}:{self.account}:repository/{name}"

    def role(self, name: str) -> str:
        return f"arn:aws:iam::{self.account}:role/kilo-{self._stage}-{name}"


def _state(bucket: str | None, objects: Sequence[str]) -> Policies:
    """The engine's state, whose key's own policy names who may use it."""
    if bucket is None:
        return {}
    return {
        "state": _document(
            Statement("ListState", ["s3:GetBucketLocation", "s3:ListBucket"], [f"arn:aws:s3:::{bucket}"]),
            Statement("State", objects, [f"arn:aws:s3:::{bucket}/*"]),
        )
    }


def _document(*statements: Statement) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [each.document() for each in statements]}
