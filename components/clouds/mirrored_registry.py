"""The artifact registry in both clouds, and the queue of what was pushed to the primary.

Tags can't be moved in the primary. Artifact Registry has no referrers API, so what is attached to an image
later must move the image's fallback tag there, which its immutable tags would forbid with all others. So
they are mutable, the mirror is the only identity that may write, and it moves no other tag.

Nothing that is tagged expires, apart from ``preview-…`` tags in the primary, and of those none that also has
a release's tag or that a preview still runs: an image that a rule keeps can't be expired by a rule after it
(https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html). ECR deletes referrers
(signatures, SBOMs) with their subject, so no rule for untagged manifests is needed, and none could
spare them.

Push events are best effort by AWS's own word; the queue makes mirroring fast, a sweep makes it
complete. Events that can't be delivered or handled end in the dead-letter queue, which is watched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_gcp as gcp

from components.clouds.cloud_identity import CloudIdentity
from components.clouds.iam import policy_json
from components.clouds.options import retain_options
from components.clouds.registry_access import mirroring, push_pattern

PREVIEW_TAG_PREFIX = "preview-"
PREVIEW_TAG_DAYS = 30
RELEASE_TAG_PATTERN = "v*"
WRITTEN_BY, WRITER = "written-by", "registry-mirror"
"""The label of a repository that the mirror alone writes; the policy pack lets tags be mutable only there."""

_FOREVER_DAYS = 36_500
QUEUE_RETENTION_SECONDS = 14 * 86_400
VISIBILITY_TIMEOUT_SECONDS = 300
DELIVERIES_BEFORE_DEAD_LETTER = 10


@dataclass(frozen=True)
class MirroredRegistryArgs:
    """What is mirrored, and where to."""

    stage: str
    repositories: Sequence[str]
    google_project: str
    google_location: str
    protect: bool
    tags: Mapping[str, str]
    replica_regions: Sequence[str] = ()
    """ECR copies the repositories there by itself; its setting for that is one for the account's registry."""
    deployed_images: Sequence[str] = ()
    """Images with tags that the stage runs; those of these repositories are kept whatever their tag."""


class MirroredRegistry(pulumi.ComponentResource):
    """ECR repositories, their mirror in Artifact Registry, and the queue of push events."""

    primary_url: pulumi.Output[str]
    """Host to which a repository's name is appended."""
    secondary_url: pulumi.Output[str]
    replica_urls: Mapping[str, pulumi.Output[str]]
    """The primary's host by region."""
    push_queue_url: pulumi.Output[str]
    dead_letter_queue_url: pulumi.Output[str]

    def __init__(
        self, name: str, args: MirroredRegistryArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:artifacts:MirroredRegistry", name, {}, opts)
        self._name, self._args = name, args
        repositories = {repository: self._repository(repository) for repository in args.repositories}
        self._repository_arns = [repository.arn for repository in repositories.values()]
        self._queue, self._dead_letters = self._push_queue()
        self._secondary = self._mirror()

        some = next(iter(repositories))
        self.primary_url = _host_of(repositories[some], some)
        self.replica_urls = self._replicas(repositories[some].registry_id)
        self.secondary_url = self._secondary.registry_uri
        self.push_queue_url = self._queue.url
        self.dead_letter_queue_url = self._dead_letters.url
        self.register_outputs(
            {
                "primary_url": self.primary_url,
                "secondary_url": self.secondary_url,
                "push_queue_url": self.push_queue_url,
            }
        )

    def allow_mirroring(self, identity: CloudIdentity, *, from_events: bool) -> None:
        """Let ``identity`` read the primary and write the mirror; ``from_events`` adds the queue."""
        queues = (self._queue.arn, self._dead_letters.arn) if from_events else None
        identity.allow("mirror", mirroring(self._repository_arns, queues))
        for account, member in identity.google_members.items():
            gcp.artifactregistry.RepositoryIamMember(
                f"{self._name}-{account}",
                project=self._args.google_project,
                location=self._secondary.location,
                repository=self._secondary.name,
                role="roles/artifactregistry.writer",
                member=member,
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _replicas(self, registry_id: pulumi.Output[str]) -> dict[str, pulumi.Output[str]]:
        """The repositories in every other region, made first so that their tags are immutable there too."""
        regions = self._args.replica_regions
        if not regions:
            return {}
        made = {
            region: {name: self._repository(name, region) for name in self._args.repositories}
            for region in regions
        }
        aws.ecr.ReplicationConfiguration(
            f"{self._name}-replication",
            replication_configuration=aws.ecr.ReplicationConfigurationReplicationConfigurationArgs(
                rules=[
                    aws.ecr.ReplicationConfigurationReplicationConfigurationRuleArgs(
                        destinations=[
                            aws.ecr.ReplicationConfigurationReplicationConfigurationRuleDestinationArgs(
                                region=region, registry_id=registry_id
                            )
                            for region in regions
                        ],
                        repository_filters=[
                            aws.ecr.ReplicationConfigurationReplicationConfigurationRuleRepositoryFilterArgs(
                                filter=name, filter_type="PREFIX_MATCH"
                            )
                            for name in self._args.repositories
                        ],
                    )
                ]
            ),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[resource for each in made.values() for resource in each.values()]
            ),
        )
        some = self._args.repositories[0]
        return {region: _host_of(repositories[some], some) for region, repositories in made.items()}

    def _repository(self, repository: str, region: str | None = None) -> aws.ecr.Repository:
        args = self._args
        label = f"{self._name}-{repository}" + (f"-{region}" if region else "")
        resource = aws.ecr.Repository(
            label,
            region=region,
            name=repository,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="AES256")
            ],
            force_delete=not args.protect,
            tags=args.tags,
            opts=retain_options(self, args.protect),
        )
        aws.ecr.LifecyclePolicy(
            label,
            region=region,
            repository=resource.name,
            policy=_lifecycle(_deployed_tags(repository, args.deployed_images)),
            opts=retain_options(self, args.protect),
        )
        return resource

    def _push_queue(self) -> tuple[aws.sqs.Queue, aws.sqs.Queue]:
        child = pulumi.ResourceOptions(parent=self)
        args = self._args
        dead_letters = aws.sqs.Queue(
            f"{self._name}-dead-letters",
            name=f"kilo-{args.stage}-registry-push-dead",
            message_retention_seconds=QUEUE_RETENTION_SECONDS,
            sqs_managed_sse_enabled=True,
            tags=args.tags,
            opts=child,
        )
        queue = aws.sqs.Queue(
            f"{self._name}-push",
            name=f"kilo-{args.stage}-registry-push",
            message_retention_seconds=QUEUE_RETENTION_SECONDS,
            visibility_timeout_seconds=VISIBILITY_TIMEOUT_SECONDS,
            receive_wait_time_seconds=20,
            sqs_managed_sse_enabled=True,
            redrive_policy=pulumi.Output.json_dumps(
                {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": DELIVERIES_BEFORE_DEAD_LETTER}
            ),
            tags=args.tags,
            opts=child,
        )
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-push",
            name=f"kilo-{args.stage}-registry-push",
            description="Images pushed to the mirrored repositories",
            event_pattern=push_pattern(args.repositories),
            state="ENABLED",
            tags=args.tags,
            opts=child,
        )
        for label, target in (("push", queue), ("dead-letters", dead_letters)):
            aws.sqs.QueuePolicy(
                f"{self._name}-{label}",
                queue_url=target.url,
                policy=_only_from(rule.arn, target.arn),
                opts=child,
            )
        aws.cloudwatch.EventTarget(
            f"{self._name}-push",
            rule=rule.name,
            target_id="push-queue",
            arn=queue.arn,
            dead_letter_config=aws.cloudwatch.EventTargetDeadLetterConfigArgs(arn=dead_letters.arn),
            retry_policy=aws.cloudwatch.EventTargetRetryPolicyArgs(
                maximum_event_age_in_seconds=86_400, maximum_retry_attempts=185
            ),
            opts=child,
        )
        return queue, dead_letters

    def _mirror(self) -> gcp.artifactregistry.Repository:
        args = self._args
        return gcp.artifactregistry.Repository(
            f"{self._name}-mirror",
            project=args.google_project,
            location=args.google_location,
            repository_id=f"kilo-{args.stage}",
            format="DOCKER",
            mode="STANDARD_REPOSITORY",
            description="Mirror of the primary registry",
            docker_config=gcp.artifactregistry.RepositoryDockerConfigArgs(immutable_tags=False),
            # KEEP wins over any DELETE that somebody may add: what is mirrored stays.
            cleanup_policies=[
                gcp.artifactregistry.RepositoryCleanupPolicyArgs(
                    id="keep-what-is-mirrored",
                    action="KEEP",
                    condition=gcp.artifactregistry.RepositoryCleanupPolicyConditionArgs(tag_state="ANY"),
                )
            ],
            labels={**args.tags, WRITTEN_BY: WRITER},
            opts=retain_options(self, args.protect),
        )


def _only_from(rule_arn: pulumi.Output[str], queue_arn: pulumi.Output[str]) -> pulumi.Output[str]:
    return policy_json(
        [
            {
                "Sid": "PushEvents",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
            }
        ]
    )


def _host_of(repository: aws.ecr.Repository, name: str) -> pulumi.Output[str]:
    return repository.repository_url.apply(lambda url: url.removesuffix(f"/{name}"))


def _deployed_tags(repository: str, images: Sequence[str]) -> list[str]:
    named = [image.partition("@")[0].rpartition(":") for image in images]
    return sorted({tag for name, _, tag in named if name.endswith(f"/{repository}")})


def _lifecycle(deployed_tags: Sequence[str]) -> str:
    """Previews go after a while; releases and what is deployed stay. Patterns of one rule must all match."""
    kept = [RELEASE_TAG_PATTERN, *deployed_tags]
    expiring = [(pattern, f"{pattern} stays", _FOREVER_DAYS) for pattern in kept]
    expiring.append(
        (f"{PREVIEW_TAG_PREFIX}*", f"Previews go after {PREVIEW_TAG_DAYS} days", PREVIEW_TAG_DAYS)
    )
    rules = [
        {
            "rulePriority": priority,
            "description": description,
            "selection": {
                "tagStatus": "tagged",
                "tagPatternList": [pattern],
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": days,
            },
            "action": {"type": "expire"},
        }
        for priority, (pattern, description, days) in enumerate(expiring, start=1)
    ]
    return json.dumps({"rules": rules})
