"""The topics that a stage on Kafka declares, made or brought to what is declared.

The counterpart of :mod:`kilo.bus.streams` (https://kafka.apache.org/documentation/#topicconfigs).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage]
    ConfigEntry,  # pyright: ignore[reportPrivateImportUsage]
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)
from confluent_kafka.cimpl import NewTopic

from kilo.bus.access import Access
from kilo.bus.kafka import MAX_MESSAGE_BYTES
from kilo.bus.kafka_access import Failures, client_settings, list_topics
from kilo.bus.port import BusError
from kilo.bus.streams import StreamPolicy
from kilo.contract import BusOutputs
from kilo.errors import BadInput

_ANSWER_SECONDS = 30.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic with one partition, and its configuration."""

    name: str
    replicas: int
    config: dict[str, str]


def declare_topics(bus: BusOutputs, policy: StreamPolicy) -> list[Topic]:
    """The topics of a stage: events, and Debezium's heartbeats.

    Raises:
        BadInput: the stream's name is not the one that events are published to.
    """
    if bus.stream != bus.subject_prefix:
        msg = (
            f"bus.stream: {bus.stream!r}: on Kafka a stream is the topic that events are published to,"
            f" so it has to be the subject prefix {bus.subject_prefix!r}"
        )
        raise BadInput(msg)
    common = {
        "cleanup.policy": "delete",
        # The time that the reconciler goes by is the broker's, not a producer's.
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(policy.replicas // 2 + 1),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES + 1024),
    }
    events = {
        **common,
        "retention.ms": str(policy.retention_days * _DAY_MS),
        # Beyond a size the oldest events would go.
        "retention.bytes": "-1",
    }
    heartbeats = {**common, "retention.ms": str(_DAY_MS)}
    return [
        Topic(bus.stream, policy.replicas, events),
        Topic(f"heartbeat.{bus.subject_prefix}", policy.replicas, heartbeats),
    ]


def apply_topics(url: str, topics: list[Topic]) -> list[tuple[str, str]]:
    """Make what is missing and set the configuration of what is there.

    Returns:
        Each topic with what was done to it.

    Raises:
        BusError: the broker does not answer.
        BadInput: it refuses a topic, or one is there with several partitions.
    """
    servers, access, failures = url.partition("://")[2], Access.from_environment(), Failures()
    settings: dict[str, Any] = {
        "bootstrap.servers": servers,
        **client_settings(access),
        "error_cb": failures,
        "log_level": 0,
    }
    admin = AdminClient(settings)
    done: list[tuple[str, str]] = []
    try:
        known = list_topics(admin, failures, _ANSWER_SECONDS)
    except KafkaException as error:
        raise BusError(failures.refusal(servers, access, error)) from error
    for topic in topics:
        there = known.get(topic.name)
        try:
            if there is None:
                made = NewTopic(topic.name, 1, topic.replicas, config=topic.config)
                admin.create_topics([made])[topic.name].result(_ANSWER_SECONDS)
                _wait_for(admin, topic.name)
            else:
                _check_partitions(topic.name, len(there.partitions))
                _configure(admin, topic)
        except KafkaException as error:
            # Listed a moment ago without it: another process, or a broker behind another, has made it.
            if there is None and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                done.append((topic.name, "up to date"))
                continue
            msg = f"the bus refuses topic {topic.name}: {error.args[0].str()}"
            raise BadInput(msg) from error
        done.append((topic.name, "up to date" if there else "created"))
    return done


def _wait_for(admin: AdminClient, name: str) -> None:
    """Until brokers know of a topic that the controller has made: a busy one takes its time, and a publish to
    what it does not know is refused."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while name not in (known := admin.list_topics(timeout=_ANSWER_SECONDS).topics) or known[name].error:
        if time.monotonic() > deadline:
            msg = f"topic {name} was made, and after {_ANSWER_SECONDS:g} s no broker knows of it"
            raise BusError(msg)
        time.sleep(0.1)


def _check_partitions(name: str, count: int) -> None:
    if count != 1:
        msg = f"topic {name} has {count} partitions: a stream has one, so that its events have one order"
        raise BadInput(msg)


def _configure(admin: AdminClient, topic: Topic) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in topic.config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
    for made in admin.incremental_alter_configs([resource]).values():
        made.result(_ANSWER_SECONDS)
