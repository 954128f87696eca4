"""What every object has: a key, labels, an owner, conditions."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Key(NamedTuple):
    """What tells an object from every other; ``namespace`` is empty for objects of the whole cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(obj: Object) -> Key:
    """The object's key."""
    metadata = obj["metadata"]
    return Key(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


def labels_of(obj: Object) -> dict[str, str]:
    """The object's labels."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    """The object's annotations."""
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Object) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in obj["metadata"]


def controller_of(obj: Object) -> Key | None:
    """The key of the object that controls this one."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            namespace = obj["metadata"].get("namespace", "")
            return Key(reference["apiVersion"], reference["kind"], namespace, reference["name"])
    return None


def owned_by(owner: Object) -> list[Object]:
    """The ``ownerReferences`` of what ``owner`` controls."""
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def is_owned_by(obj: Object, owner: Object) -> bool:
    """Whether ``owner``, this one and no earlier one of its name, controls the object."""
    references = obj["metadata"].get("ownerReferences") or ()
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in references)


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches; an absent one matches nothing."""
    if selector is None:
        return False
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    return all(_expression(rule, labels) for rule in selector.get("matchExpressions") or ())


def _expression(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values") or []
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def timestamp() -> str:
    """The present moment as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """A moment as Kubernetes writes it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def seconds_since(text: str) -> float:
    """How long ago that was."""
    return (datetime.now(UTC) - parse_timestamp(text)).total_seconds()


def new_uid() -> str:
    """An identifier that no other object ever has."""
    return str(uuid.uuid4())


def name_suffix() -> str:
    """Five characters, as Kubernetes appends them to generated names: none that could form a word."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def condition(kind: str, *, holds: bool, reason: str = "", message: str = "") -> Object:
    """A status condition."""
    made = {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}
    return {name: value for name, value in made.items() if value}


def with_transitions(new: list[Object], old: list[Object] | None) -> list[Object]:
    """Conditions with the time of their last change: the old one's where nothing changed."""
    before = {item["type"]: item for item in old or ()}
    for item in new:
        previous = before.get(item["type"])
        same = previous is not None and previous["status"] == item["status"]
        item["lastTransitionTime"] = (
            previous["lastTransitionTime"] if previous is not None and same else timestamp()
        )
    return new


def find_condition(obj: Object, kind: str) -> Object | None:
    """The status condition of that type."""
    return next(
        (item for item in (obj.get("status") or {}).get("conditions") or () if item["type"] == kind), None
    )


def holds(obj: Object, kind: str) -> bool:
    """Whether that status condition is True."""
    found = find_condition(obj, kind)
    return found is not None and found["status"] == "True"
