"""Copies of a locked bucket's objects in another region, locked as the originals are.

S3 copies new objects with their locks, within minutes as a rule; deletions are not copied. Who copies may
do that alone: read versions here and replicate there.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/replication-config-for-kms-objects.html has the
variants for other encryption; https://docs.aws.amazon.com/AmazonS3/latest/userguide/setting-repl-config-perm-overview.html
the rights.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.clouds.iam import Statement, policy_json
from components.clouds.s3_locked_bucket import S3LockedBucket


@dataclass(frozen=True)
class S3ReplicationArgs:
    """From where to where, and the name of the role that copies."""

    source: S3LockedBucket
    destination: S3LockedBucket
    role_name: str
    permissions_boundary: str | None = None


class S3Replication(pulumi.ComponentResource):
    """The rule that copies every object, and the role that does it."""

    def __init__(
        self, name: str, args: S3ReplicationArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:storage:S3Replication", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        source, destination = args.source, args.destination
        role = aws.iam.Role(
            name,
            name=args.role_name,
            description="Copies objects of a bucket to another region",
            assume_role_policy=policy_json(
                [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "s3.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                        "Condition": {"ArnEquals": {"aws:SourceArn": source.arn}},
                    }
                ]
            ),
            permissions_boundary=args.permissions_boundary,
            opts=child,
        )
        statements = [
            Statement("Look", ["s3:GetReplicationConfiguration", "s3:ListBucket"], [source.arn]),
            Statement(
                "Read",
                [
                    "s3:GetObjectLegalHold",
                    "s3:GetObjectRetention",
                    "s3:GetObjectVersionAcl",
                    "s3:GetObjectVersionForReplication",
                    "s3:GetObjectVersionTagging",
                ],
                [pulumi.Output.concat(source.arn, "/*")],
            ),
            Statement(
                "Replicate",
                ["s3:ReplicateObject", "s3:ReplicateTags"],
                [pulumi.Output.concat(destination.arn, "/*")],
            ),
        ]
        policy = aws.iam.RolePolicy(
            name,
            name="replicate",
            role=role.name,
            policy=policy_json([statement.document() for statement in statements]),
            opts=child,
        )
        aws.s3.BucketReplicationConfig(
            name,
            bucket=source.bucket,
            role=role.arn,
            rules=[
                aws.s3.BucketReplicationConfigRuleArgs(
                    id="everything",
                    status="Enabled",
                    priority=1,
                    filter=aws.s3.BucketReplicationConfigRuleFilterArgs(prefix=""),
                    delete_marker_replication=aws.s3.BucketReplicationConfigRuleDeleteMarkerReplicationArgs(
                        status="Disabled"
                    ),
                    destination=aws.s3.BucketReplicationConfigRuleDestinationArgs(bucket=destination.arn),
                )
            ],
            # Both buckets must be versioned, which their components see to.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, source, destination]),
        )
        self.register_outputs({})
