"""What each of the bus's roles may do on Amazon's managed Kafka (MSK), as IAM has it; pure.

The counterpart of the rights that `docs/outbox.md` names for a Kafka with ACLs. Left out: the cluster itself.
https://docs.aws.amazon.com/msk/latest/developerguide/kafka-actions.html
"""

from __future__ import annotations

from collections.abc import Sequence

from components.clouds.iam import Statement
from kilo.bus.roles import BUS_ROLES, KAFKA_GROUP, BusRole

_CONNECT = ("kafka-cluster:Connect",)
_CONNECT_TO_WRITE = (*_CONNECT, "kafka-cluster:WriteDataIdempotently")
_LOOK = ("kafka-cluster:DescribeTopic",)
_READ = (*_LOOK, "kafka-cluster:ReadData")
_WRITE = (*_LOOK, "kafka-cluster:WriteData")
_DECLARE = (
    *_LOOK,
    "kafka-cluster:AlterTopicDynamicConfiguration",
    "kafka-cluster:CreateTopic",
    "kafka-cluster:DescribeTopicDynamicConfiguration",
)
# AWS lets nobody read who may not do this to a group, though nothing is kept in it.
_JOIN = ("kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup")
_ON_TOPICS: dict[BusRole, Sequence[str]] = {
    "worker": _WRITE,
    "cdc": _WRITE,
    "consumer": _READ,
    "reconciler": (*_READ, "kafka-cluster:WriteData"),
    "operator": _DECLARE,
}


def msk_statements(role: BusRole, cluster: str, topic: str) -> list[Statement]:
    """The rights of ``role`` on the cluster with the ARN ``cluster``, of which ``topic`` has the events."""
    actions = _ON_TOPICS[role]
    topics = [topic, *([f"heartbeat.{topic}"] if role in {"cdc", "operator"} else [])]
    writes = "kafka-cluster:WriteData" in actions
    found = [
        Statement("Cluster", _CONNECT_TO_WRITE if writes else _CONNECT, [cluster]),
        Statement("Topics", actions, [_inside(cluster, "topic", name) for name in topics]),
    ]
    if "kafka-cluster:ReadData" in actions:
        found.append(Statement("Group", _JOIN, [_inside(cluster, "group", KAFKA_GROUP)]))
    return found


def msk_boundary(cluster: str, topic: str) -> Statement:
    """What no role may go beyond."""
    every = [each for role in BUS_ROLES for each in msk_statements(role, cluster, topic)]
    return Statement(
        "Kafka",
        sorted({action for each in every for action in each.actions}),
        sorted({str(resource) for each in every for resource in each.resources}),
    )


def _inside(cluster: str, kind: str, name: str) -> str:
    return f"{cluster.replace(':cluster/', f':{kind}/')}/{name}"
