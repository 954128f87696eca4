"""AWS SQS: queues and their access policies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError

from sandbox.providers.aws.clients import AwsType, all_tags, error_code, tag_changes, tag_outputs, unless_gone
from sandbox.providers.base import Autoname
from sandbox.providers.rules import matches, within
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_GONE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
# Pulumi's name and the API's, and what a new queue has (SetQueueAttributes in the SQS API reference).
_NUMBERS: dict[str, tuple[str, int]] = {
    "delaySeconds": ("DelaySeconds", 0),
    "kmsDataKeyReusePeriodSeconds": ("KmsDataKeyReusePeriodSeconds", 300),
    "maxMessageSize": ("MaximumMessageSize", 262_144),
    "messageRetentionSeconds": ("MessageRetentionPeriod", 345_600),
    "receiveWaitTimeSeconds": ("ReceiveMessageWaitTimeSeconds", 0),
    "visibilityTimeoutSeconds": ("VisibilityTimeout", 30),
}
_TEXTS = {
    "deduplicationScope": "DeduplicationScope",
    "fifoThroughputLimit": "FifoThroughputLimit",
    "kmsMasterKeyId": "KmsMasterKeyId",
    "policy": "Policy",
    "redriveAllowPolicy": "RedriveAllowPolicy",
    "redrivePolicy": "RedrivePolicy",
}
_SWITCHES = {
    "contentBasedDeduplication": "ContentBasedDeduplication",
    "sqsManagedSseEnabled": "SqsManagedSseEnabled",
}


class Queue(AwsType):
    """A queue."""

    type_name = "aws:sqs/queue:Queue"
    service = "sqs"
    tagged = True
    immutable = ("name", "namePrefix", "region", "fifoQueue")
    autoname = Autoname(maximum=80)
    documents = ("policy", "redrivePolicy", "redriveAllowPolicy")
    defaults = {
        "contentBasedDeduplication": False,
        "fifoQueue": False,
        **{
            name: default for name, (_, default) in _NUMBERS.items() if name != "kmsDataKeyReusePeriodSeconds"
        },
    }
    server_chosen = [
        "region",
        "tagsAll",
        "policy",
        "sqsManagedSseEnabled",
        "kmsDataKeyReusePeriodSeconds",
        "deduplicationScope",
        "fifoThroughputLimit",
        "redriveAllowPolicy",
        "namePrefix",
    ]

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Ranges of the API's reference."""
        words = "1 to 80 letters, digits, hyphens and underscores, and .fifo at the end of a FIFO queue's"
        suffix = r"\.fifo" if inputs["fifoQueue"] is True else ""
        yield from matches(inputs, "name", rf"[A-Za-z0-9_-]{{1,75}}{suffix}|[A-Za-z0-9_-]{{1,80}}", words)
        yield from within(inputs, "delaySeconds", 0, 900)
        yield from within(inputs, "maxMessageSize", 1024, 1_048_576)
        yield from within(inputs, "messageRetentionSeconds", 60, 1_209_600)
        yield from within(inputs, "receiveWaitTimeSeconds", 0, 20)
        yield from within(inputs, "visibilityTimeoutSeconds", 0, 43_200)
        yield from within(inputs, "kmsDataKeyReusePeriodSeconds", 60, 86_400)
        if inputs.get("kmsMasterKeyId") and inputs.get("sqsManagedSseEnabled"):
            yield Failure(
                "sqsManagedSseEnabled", "a queue is encrypted with kmsMasterKeyId or by SQS, not both"
            )

    def create(self, inputs: Properties) -> str:
        """The queue's URL is its id."""
        attributes = _attributes(inputs)
        if inputs["fifoQueue"]:
            attributes["FifoQueue"] = "true"
        else:
            attributes.pop("ContentBasedDeduplication", None)
        created = self.client(inputs).create_queue(
            QueueName=inputs["name"], Attributes=attributes, tags=all_tags(inputs)
        )
        return created["QueueUrl"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Live."""
        sqs = self.client(known)
        try:
            found = sqs.get_queue_attributes(QueueUrl=resource_id, AttributeNames=["All"])["Attributes"]
        except ClientError as error:
            if error_code(error) in _GONE:
                return None
            raise
        read: Properties = {
            "arn": found["QueueArn"],
            "name": found["QueueArn"].split(":")[-1],
            "url": resource_id,
            "fifoQueue": found.get("FifoQueue") == "true",
            "region": sqs.meta.region_name,
            **tag_outputs(sqs.list_queue_tags(QueueUrl=resource_id).get("Tags") or {}, known),
        }
        for name, (attribute, default) in _NUMBERS.items():
            read[name] = int(found.get(attribute, default))
        for name, attribute in _TEXTS.items():
            read[name] = found.get(attribute) or None
        for name, attribute in _SWITCHES.items():
            read[name] = found.get(attribute) == "true"
        # A policy that a QueuePolicy put there is that resource's, not this one's.
        if "policy" not in known:
            del read["policy"]
        return read

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Attributes that are no longer given go back to a new queue's."""
        sqs = self.client(new)
        before, after = _attributes(old), _attributes(new)
        for name in ("kmsMasterKeyId", "redrivePolicy", "redriveAllowPolicy"):
            if old.get(name) and not new.get(name):
                after[_TEXTS[name]] = ""
        if not new["fifoQueue"]:
            after.pop("ContentBasedDeduplication", None)
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        if changed:
            # moto forgets the policy that a call leaves out; SQS does not.
            policy = sqs.get_queue_attributes(QueueUrl=resource_id, AttributeNames=["Policy"])
            changed = {**policy.get("Attributes", {}), **changed}
            sqs.set_queue_attributes(QueueUrl=resource_id, Attributes=changed)
        put, removed = tag_changes(old, new)
        if put:
            sqs.tag_queue(QueueUrl=resource_id, Tags=put)
        if removed:
            sqs.untag_queue(QueueUrl=resource_id, TagKeys=removed)

    def delete(self, resource_id: str, known: Properties) -> None:
        """With its messages."""
        with unless_gone(*_GONE):
            self.client(known).delete_queue(QueueUrl=resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        with unless_gone(*_GONE):
            return self.client(inputs).get_queue_url(QueueName=inputs["name"])["QueueUrl"]
        return None


def _attributes(inputs: Properties) -> dict[str, Any]:
    made = {_NUMBERS[name][0]: str(inputs[name]) for name in _NUMBERS if inputs.get(name) is not None}
    made |= {attribute: inputs[name] for name, attribute in _TEXTS.items() if inputs.get(name)}
    switches = {a: str(inputs[name]).lower() for name, a in _SWITCHES.items() if inputs.get(name) is not None}
    return made | switches


class QueuePolicy(AwsType):
    """Who may send to and receive from a queue."""

    type_name = "aws:sqs/queuePolicy:QueuePolicy"
    service = "sqs"
    immutable = ("queueUrl", "region")
    documents = ("policy",)
    server_chosen = ("region",)

    def create(self, inputs: Properties) -> str:
        """The queue's URL is its id."""
        self.update(inputs["queueUrl"], {}, inputs)
        return inputs["queueUrl"]

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Gone with its queue."""
        sqs = self.client(known)
        with unless_gone(*_GONE):
            found = sqs.get_queue_attributes(QueueUrl=resource_id, AttributeNames=["Policy"])
            if policy := found.get("Attributes", {}).get("Policy"):
                return {"queueUrl": resource_id, "policy": policy, "region": sqs.meta.region_name}
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.client(new).set_queue_attributes(QueueUrl=resource_id, Attributes={"Policy": new["policy"]})

    def delete(self, resource_id: str, known: Properties) -> None:
        """Back to the queue's owner alone."""
        with unless_gone(*_GONE):
            self.client(known).set_queue_attributes(QueueUrl=resource_id, Attributes={"Policy": ""})


TYPES = (Queue(), QueuePolicy())
