"""Reads the engine's preview events into changes, broken policies and errors.

The format is that of ``pulumi preview --json`` with ``PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true``: one
``apitype.EngineEvent`` a line. The single document that the engine writes without it says nothing of
policies. Steps that change nothing, and the engine's own bookkeeping (providers, the stack), are left out;
so are debug messages, in which the SDK shows values in the clear.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kilo.errors import BadInput

Operation = Literal["create", "update", "replace", "delete"]

_OPERATIONS: dict[str, Operation] = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "import": "create",
    "import-replacement": "replace",
}
_BOOKKEEPING = ("pulumi:pulumi:", "pulumi:providers:")
SECRET = "[secret]"  # noqa: S105  what stands for one
"""Stands for a value that the engine holds secret."""

# How the engine marks an object that is not a plain one, and a secret among them:
# sdk/go/common/resource/properties.go.
_SIGNATURE, _SECRET_SIGNATURE = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
# The engine's own sentence for a rule that has to wait until values are known, which is no finding.
_NOT_YET = "during preview: "


@dataclass(frozen=True)
class PropertyChange:
    """One property's path, as ``spec.replicas`` or ``rules[0].days``, and its values before and after.

    A value is None where the property was or will be absent.
    """

    path: str
    before: object
    after: object
    forces_replacement: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    operation: Operation
    type: str
    name: str
    urn: str
    properties: tuple[PropertyChange, ...] = ()
    protected: bool = False


@dataclass(frozen=True)
class Violation:
    """One thing that breaks a rule of the policy pack; a mandatory one stops the deployment."""

    policy: str
    message: str
    mandatory: bool


@dataclass(frozen=True)
class Preview:
    """What a preview of one stage said, in the engine's order."""

    changes: tuple[Change, ...] = ()
    violations: tuple[Violation, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def stopped_by_protection(self) -> bool:
        """Whether the engine came to something protected that would be deleted, and looked no further."""
        return any(is_of_protection(error) for error in self.errors)


def is_of_protection(error: str) -> bool:
    """Whether the engine's error says that something protected can't be deleted (resource/deploy/step.go)."""
    return "because it is protected" in error or "currently marked for protection" in error


def parse_events(text: str) -> Preview:
    """What the events of a preview say.

    Raises:
        BadInput: the text is not the events of a preview.
    """
    try:
        events: list[Mapping[str, Any]] = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not any("preludeEvent" in event or "summaryEvent" in event for event in events):
            raise ValueError("neither its beginning nor its end is there")  # noqa: EM101, TRY301
        return Preview(
            tuple(change for event in events for change in _change(event)),
            tuple(violation for event in events for violation in _violations(event)),
            tuple(error for event in events for error in _errors(event)),
        )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        msg = (
            "not the output of `pulumi preview --json` with "
            f"PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true: {error}"
        )
        raise BadInput(msg) from error


def _change(event: Mapping[str, Any]) -> Iterator[Change]:
    if "resourcePreEvent" not in event:
        return
    step = event["resourcePreEvent"]["metadata"]
    operation = _OPERATIONS.get(step["op"])
    type_, name = _parts(step["urn"])
    # A replacement also has its own create and delete steps; the one that names it is enough.
    if operation is None or type_.startswith(_BOOKKEEPING):
        return
    old, new = step.get("old") or {}, step.get("new") or {}
    yield Change(
        operation,
        type_,
        name,
        step["urn"],
        tuple(_properties(step, old.get("inputs") or {}, new.get("inputs") or {})),
        bool(old.get("protect") or new.get("protect")),
    )


def _violations(event: Mapping[str, Any]) -> Iterator[Violation]:
    if (found := event.get("policyEvent")) is None:
        return
    message = found["message"].strip()
    if not message.startswith("can't run policy") or _NOT_YET not in message:
        # The first line is the rule's description; the second names the resource and says the rest.
        said = message.partition("\n")[2].strip() or message
        yield Violation(found["policyName"], said, found["enforcementLevel"] == "mandatory")


def _errors(event: Mapping[str, Any]) -> Iterator[str]:
    found = event.get("diagnosticEvent") or {}
    if found.get("severity") == "error":
        yield found["message"].strip()


def _parts(urn: str) -> tuple[str, str]:
    """The type and the name of ``urn:pulumi:stack::project::types::name``."""
    _, _, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name


def _properties(
    step: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[PropertyChange]:
    if step["op"] in ("create", "delete"):
        return
    forcing: list[str] = step.get("keys") or []
    detailed: Mapping[str, Mapping[str, Any]] = step.get("detailedDiff") or {}
    paths = list(detailed) or list(dict.fromkeys([*(step.get("diffs") or ()), *forcing]))
    for path in paths:
        kind = str(detailed.get(path, {}).get("diffKind", ""))
        forces = kind.endswith("-replace") or path in forcing
        before, after = _shown(_at(old, path)), _shown(_at(new, path))
        # Two secrets look the same; that the engine names the path says that they are not.
        if before != after or forces or before == SECRET:
            yield PropertyChange(path, before, after, forces)


def _at(value: Any, path: str) -> object:
    """The value at a property path of the engine, None when there is none."""
    for part in _path(path):
        if _is_secret(value):
            return value
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            index = int(part)
            value = value[index] if index < len(value) else None
        else:
            return None
    return value


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_SIGNATURE) == _SECRET_SIGNATURE


def _shown(value: Any) -> Any:
    """``value`` with each secret in it by its name alone."""
    if _is_secret(value):
        return SECRET
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


def _path(path: str) -> list[str]:
    parts: list[str] = []
    rest = path
    while rest:
        if rest.startswith('["'):
            name, _, rest = rest[2:].partition('"]')
        elif rest.startswith("["):
            name, _, rest = rest[1:].partition("]")
        else:
            end = min((index for index in (rest.find("."), rest.find("[")) if index >= 0), default=len(rest))
            name, rest = rest[:end], rest[end:]
        parts.append(name)
        rest = rest.removeprefix(".")
    return parts
