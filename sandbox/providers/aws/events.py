"""AWS EventBridge: rules and their targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandbox.providers.aws.clients import AwsType, tag_changes, tag_list, tag_outputs, unless_gone
from sandbox.providers.aws.shapes import from_api, to_api
from sandbox.providers.base import Autoname
from sandbox.providers.rules import matches, one_of, within
from sandbox.providers.schema import Failure
from sandbox.providers.values import UNKNOWN, Properties

_GONE = ("ResourceNotFoundException",)


class Rule(AwsType):
    """Which events, or when."""

    type_name = "aws:cloudwatch/eventRule:EventRule"
    service = "events"
    tagged = True
    immutable = ("name", "namePrefix", "eventBusName", "region")
    autoname = Autoname(maximum=64)
    documents = ("eventPattern",)
    defaults = {"eventBusName": "default", "forceDestroy": False}
    server_chosen = ("region", "tagsAll", "state", "isEnabled", "namePrefix")
    unsupported = ("isEnabled",)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """A pattern or a schedule."""
        words = "1 to 64 letters, digits, dots, hyphens and underscores"
        yield from matches(inputs, "name", r"[0-9A-Za-z_.-]{1,64}", words)
        states = ("ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
        yield from one_of(inputs, "state", states)
        if inputs.get("eventPattern") is None and inputs.get("scheduleExpression") is None:
            yield Failure("eventPattern", "a rule has an eventPattern or a scheduleExpression")

    def create(self, inputs: Properties) -> str:
        """The rule's name is its id, after its bus's where that is not the default one."""
        self._put(inputs, Tags=tag_list(inputs))
        bus: str = inputs["eventBusName"]
        return inputs["name"] if bus == "default" else f"{bus}/{inputs['name']}"

    def _put(self, inputs: Properties, **more: Any) -> None:
        arguments = {
            "Name": inputs["name"],
            "EventBusName": inputs["eventBusName"],
            "EventPattern": inputs.get("eventPattern"),
            "ScheduleExpression": inputs.get("scheduleExpression"),
            "Description": inputs.get("description"),
            "RoleArn": inputs.get("roleArn"),
            "State": inputs.get("state") or "ENABLED",
            **more,
        }
        self.client(inputs).put_rule(**{k: v for k, v in arguments.items() if v is not None})

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Live, but for ``forceDestroy``."""
        events = self.client(known)
        bus, _, name = resource_id.rpartition("/")
        with unless_gone(*_GONE):
            found = events.describe_rule(Name=name, EventBusName=bus or "default")
            tags = {
                t["Key"]: t["Value"] for t in events.list_tags_for_resource(ResourceARN=found["Arn"])["Tags"]
            }
            return {
                "name": name,
                "arn": found["Arn"],
                "eventBusName": bus or "default",
                "eventPattern": found.get("EventPattern"),
                "scheduleExpression": found.get("ScheduleExpression") or None,
                "description": found.get("Description"),
                "roleArn": found.get("RoleArn"),
                "state": found.get("State"),
                "region": events.meta.region_name,
                **tag_outputs(tags, known),
            }
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole; tags apart."""
        self._put(new)
        events = self.client(new)
        put, removed = tag_changes(old, new)
        if put:
            tags = [{"Key": key, "Value": value} for key, value in put.items()]
            events.tag_resource(ResourceARN=old["arn"], Tags=tags)
        if removed:
            events.untag_resource(ResourceARN=old["arn"], TagKeys=removed)

    def delete(self, resource_id: str, known: Properties) -> None:
        """A rule with targets can't be deleted, as in EventBridge."""
        bus, _, name = resource_id.rpartition("/")
        with unless_gone(*_GONE):
            self.client(known).delete_rule(Name=name, EventBusName=bus or "default")

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        bus: str = inputs["eventBusName"]
        resource_id = inputs["name"] if bus == "default" else f"{bus}/{inputs['name']}"
        return resource_id if self.read(resource_id, inputs) else None


# Pulumi's name and the API's.
_TARGET = {
    "arn": "Arn",
    "roleArn": "RoleArn",
    "input": "Input",
    "inputPath": "InputPath",
    "deadLetterConfig": "DeadLetterConfig",
    "retryPolicy": "RetryPolicy",
    "sqsTarget": "SqsParameters",
}
_RENAMED = {"maximumEventAgeInSeconds": "MaximumEventAgeInSeconds", "inputPaths": "InputPathsMap"}


class Target(AwsType):
    """Where a rule's events go."""

    type_name = "aws:cloudwatch/eventTarget:EventTarget"
    service = "events"
    immutable = ("rule", "targetId", "eventBusName", "region")
    defaults = {"eventBusName": "default", "forceDestroy": False}
    server_chosen = ("region",)
    autoname = Autoname(property="targetId", maximum=64)
    unsupported = [
        "appsyncTarget",
        "batchTarget",
        "ecsTarget",
        "httpTarget",
        "inputTransformer",
        "kinesisTarget",
        "redshiftTarget",
        "runCommandTargets",
        "sagemakerPipelineTarget",
    ]

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Ranges of the API's reference."""
        arn = inputs.get("arn")
        if arn is not UNKNOWN and not str(arn).startswith("arn:"):
            yield Failure("arn", f'must be an ARN, and is "{arn}"')
        yield from within(inputs, "retryPolicy.maximumEventAgeInSeconds", 60, 86_400)
        yield from within(inputs, "retryPolicy.maximumRetryAttempts", 0, 185)

    def create(self, inputs: Properties) -> str:
        """The rule's and the target's names, as the official provider joins them."""
        target = {"Id": inputs["targetId"]}
        target |= {
            theirs: to_api(inputs[ours], _RENAMED) for ours, theirs in _TARGET.items() if ours in inputs
        }
        answer = self.client(inputs).put_targets(
            Rule=inputs["rule"], EventBusName=inputs["eventBusName"], Targets=[target]
        )
        if failed := answer.get("FailedEntries"):
            raise RuntimeError(failed[0].get("ErrorMessage") or failed[0].get("ErrorCode"))
        bus = inputs["eventBusName"]
        return (
            f"{inputs['rule']}-{inputs['targetId']}"
            if bus == "default"
            else f"{bus}-{inputs['rule']}-{inputs['targetId']}"
        )

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Found among its rule's targets. At an import the id is ``rule/target``, or ``bus/rule/target``."""
        if not known:
            *bus, rule, target_id = resource_id.split("/")
            known = {"rule": rule, "targetId": target_id, "eventBusName": bus[0] if bus else "default"}
        events = self.client(known)
        with unless_gone(*_GONE):
            listed = events.list_targets_by_rule(Rule=known["rule"], EventBusName=known["eventBusName"])
            for found in listed["Targets"]:
                if found["Id"] == known["targetId"]:
                    read = {ours: from_api(found.get(theirs), _RENAMED) for ours, theirs in _TARGET.items()}
                    names = ("rule", "targetId", "eventBusName")
                    return {**read, **{n: known[n] for n in names}, "region": events.meta.region_name}
        return None

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Put whole."""
        self.create(new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """The rule stays."""
        with unless_gone(*_GONE):
            self.client(known).remove_targets(
                Rule=known["rule"], EventBusName=known["eventBusName"], Ids=[known["targetId"]]
            )


TYPES = (Rule(), Target())
