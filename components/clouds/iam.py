"""IAM policy documents as data.

Actions are always spelled out. Resources are always ARNs, with two exceptions that AWS itself makes:
objects of a bucket are named by a prefix that ends in ``/*``, and a few actions (such as
``ecr:GetAuthorizationToken``) know no resource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

ACTIONS_WITHOUT_RESOURCE = frozenset(
    {
        "ecr:DescribeRegistry",
        "ecr:GetAuthorizationToken",
        "ecr:PutReplicationConfiguration",
        "kms:CreateKey",
        "kms:ListAliases",
        "tag:GetResources",
    }
)
"""Actions for which the service authorization reference lists no resource type."""


@dataclass(frozen=True)
class Statement:
    """One Allow statement of a policy.

    Raises:
        ValueError: an action holds a wildcard, or a resource does where AWS doesn't demand it.
    """

    sid: str
    actions: Sequence[str]
    resources: Sequence[pulumi.Input[str]]
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def __post_init__(self) -> None:
        for action in self.actions:
            if "*" in action:
                msg = f"statement {self.sid}: action {action} has a wildcard; list the actions"
                raise ValueError(msg)
        if "*" in self.resources and not set(self.actions) <= ACTIONS_WITHOUT_RESOURCE:
            msg = f"statement {self.sid}: resource '*' is only for actions that know no resource"
            raise ValueError(msg)

    def document(self) -> dict[str, Any]:
        """The statement as IAM's JSON has it."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
        }
        if self.conditions:
            statement["Condition"] = {operator: dict(keys) for operator, keys in self.conditions.items()}
        return statement


def policy_json(statements: Sequence[Mapping[str, Any]]) -> pulumi.Output[str]:
    """A policy document of ``statements`` as JSON; values may be outputs."""
    return pulumi.Output.json_dumps(
        {"Version": "2012-10-17", "Statement": [dict(item) for item in statements]}
    )
