"""What the registry's policies and its rule say, as text: it grows with every repository that is mirrored."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pulumi

from components.clouds.iam import Statement

READ_PRIMARY = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:DescribeImages",
    "ecr:DescribeRepositories",
    "ecr:GetDownloadUrlForLayer",
    "ecr:ListImages",
)
CONSUME_QUEUE = (
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
)


def mirroring(
    repository_arns: Sequence[pulumi.Input[str]],
    queues: tuple[pulumi.Input[str], pulumi.Input[str]] | None,
) -> list[Statement]:
    """What who mirrors may do: read the repositories, and take push events from the first of ``queues``."""
    statements = [
        Statement("SignIn", ["ecr:GetAuthorizationToken"], ["*"]),
        Statement("ReadPrimary", READ_PRIMARY, repository_arns),
    ]
    if queues:
        pushes, dead_letters = queues
        statements.append(Statement("TakePushEvents", CONSUME_QUEUE, [pushes]))
        statements.append(Statement("CountParkedPushes", ["sqs:GetQueueAttributes"], [dead_letters]))
    return statements


def push_pattern(repositories: Sequence[str]) -> str:
    """The pattern of push events to ``repositories``.

    https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html
    """
    return json.dumps(
        {
            "source": ["aws.ecr"],
            "detail-type": ["ECR Image Action"],
            "detail": {
                "action-type": ["PUSH"],
                "result": ["SUCCESS"],
                "repository-name": list(repositories),
            },
        }
    )
