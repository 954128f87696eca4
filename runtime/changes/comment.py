"""Writes the changes of every stage as one Markdown comment: the dangerous ones first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from runtime.changes.danger import dangers
from runtime.changes.preview import Change, Operation, PropertyChange
from runtime.changes.redaction import redact

MARKER = "<!-- kilo preview-diff -->"
"""Lets a workflow find its own comment and update it."""

COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment's body."""

_ORDER: tuple[Operation, ...] = ("replace", "delete", "update", "create")
_SIGNS = {"create": "+", "update": "~", "replace": "±", "delete": "-"}
_VALUE_LIMIT = 120


def render_comment(stages: Mapping[str, Sequence[Change]]) -> str:
    """The comment for ``stages``, by name, each with its changes.

    The same changes give the same comment. What doesn't fit into a comment is cut, and the cut is said.
    """
    lines = [MARKER, "### Preview", "", *_summary(stages), ""]
    for stage, changes in stages.items():
        lines += _stage(stage, changes)
    text = redact("\n".join(lines).rstrip() + "\n")
    if len(text) <= COMMENT_LIMIT:
        return text
    note = "\n\n… cut here: the whole diff is in the job's artifact.\n"
    return text[: COMMENT_LIMIT - len(note)].rpartition("\n")[0] + note


def render_json(stages: Mapping[str, Sequence[Change]]) -> str:
    """The same as JSON: by stage a list of changes with their dangers."""
    document = {stage: [_as_json(change) for change in changes] for stage, changes in stages.items()}
    return redact(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))


def _as_json(change: Change) -> dict[str, object]:
    return {
        "operation": change.operation,
        "type": change.type,
        "name": change.name,
        "dangers": dangers(change),
        "properties": [
            {"path": item.path, "before": item.before, "after": item.after} for item in change.properties
        ],
    }


def _summary(stages: Mapping[str, Sequence[Change]]) -> list[str]:
    lines = [
        "| stage | replace | delete | update | create | dangerous |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage, changes in stages.items():
        counts = [sum(change.operation == operation for change in changes) for operation in _ORDER]
        risky = sum(bool(dangers(change)) for change in changes)
        lines.append(f"| {stage} | {' | '.join(map(str, counts))} | {f'**{risky}**' if risky else 0} |")
    return lines


def _stage(stage: str, changes: Sequence[Change]) -> list[str]:
    if not changes:
        return [f"#### {stage}", "", "No changes.", ""]
    lines = [f"#### {stage}", ""]
    risky = [change for change in changes if dangers(change)]
    for change in sorted(risky, key=_rank):
        lines += [f"- :warning: **{change.operation}** {_title(change)}: {'; '.join(dangers(change))}"]
    if risky:
        lines.append("")
    lines += ["<details><summary>All changes</summary>", "", "```diff"]
    for change in sorted(changes, key=_rank):
        lines.append(f"{_SIGNS[change.operation]} {change.type} {change.name}")
        lines += [f"    {_property(item)}" for item in change.properties]
    return [*lines, "```", "", "</details>", ""]


def _rank(change: Change) -> tuple[bool, int, str, str]:
    return not dangers(change), _ORDER.index(change.operation), change.type, change.name


def _title(change: Change) -> str:
    return f"`{change.name}` ({change.type.rpartition(':')[2]})"


def _property(item: PropertyChange) -> str:
    forces = "  (forces replacement)" if item.forces_replacement else ""
    return f"{item.path}: {_value(item.before)} -> {_value(item.after)}{forces}"


def _value(value: object) -> str:
    if value is None:
        return "(none)"
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= _VALUE_LIMIT else f"{text[: _VALUE_LIMIT - 1]}…"
