"""Writes the changes of every stage as one Markdown comment: the dangerous ones of all stages first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kilo.changes.danger import dangers
from kilo.changes.markdown import code, cut, fenced, plain
from kilo.changes.preview import Change, Operation, Preview, Violation, is_of_protection
from kilo.changes.redaction import redact
from kilo.changes.values import value_lines

MARKER = "<!-- kilo preview-diff -->"
"""Lets a workflow find its own comment and update it."""

COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment's body."""

_ERROR_LIMIT = 2_000
_ORDER: tuple[Operation, ...] = ("replace", "delete", "update", "create")
_SIGNS = {"create": "+", "update": "~", "replace": "±", "delete": "-"}


def render_comment(stages: Mapping[str, Preview], *, limited: bool = True) -> str:
    """The comment for ``stages``, by name, each with what its preview said.

    The same previews give the same comment. What doesn't fit into a comment is cut, and the cut is said;
    nothing is cut when it is not ``limited``.
    """
    lines = [MARKER, "### Preview", "", *_summary(stages), ""]
    for stage, preview in stages.items():
        lines += _first(stage, preview)
    # Last, so that nothing else is lost of a comment that is cut.
    for stage, preview in stages.items():
        lines += _all(stage, preview)
    text = redact("\n".join(lines).rstrip() + "\n")
    if not limited or len(text) <= COMMENT_LIMIT:
        return text
    return cut(text, COMMENT_LIMIT)


def render_json(stages: Mapping[str, Preview]) -> str:
    """The same as JSON, by stage: changes with their dangers, violations of policies, errors."""
    document = {
        stage: {
            "changes": [_as_json(change) for change in preview.changes],
            "violations": [
                {"policy": found.policy, "message": found.message, "mandatory": found.mandatory}
                for found in preview.violations
            ],
            "errors": list(preview.errors),
        }
        for stage, preview in stages.items()
    }
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


def _summary(stages: Mapping[str, Preview]) -> list[str]:
    lines = [
        "| stage | replace | delete | update | create | dangerous | policies |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for stage, preview in stages.items():
        counts = [sum(change.operation == operation for change in preview.changes) for operation in _ORDER]
        risky = sum(bool(dangers(change)) for change in preview.changes)
        lines.append(
            f"| {stage} | {' | '.join(map(str, counts))} | {f'**{risky}**' if risky else 0} "
            f"| {_policies(preview)} |"
        )
    return lines


def _policies(preview: Preview) -> str:
    broken = sum(found.mandatory for found in preview.violations)
    reported = len(preview.violations) - broken
    said = [f"**{broken} broken**"] if broken else []
    said += [f"{reported} reported"] if reported else []
    return ", ".join(said) or "kept"


def _first(stage: str, preview: Preview) -> list[str]:
    """What has to be read: errors, broken policies, dangerous changes, or that nothing changes."""
    lines = [line for error in sorted(preview.errors) if _says_more(error) for line in _quoted(error)]
    lines += _violations(preview.violations)
    risky = [change for change in preview.changes if dangers(change)]
    for change in sorted(risky, key=_rank):
        said = "; ".join(plain(danger) for danger in dangers(change))
        lines += [f"- :warning: **{change.operation}** {_title(change)}: {said}"]
    if risky:
        lines.append("")
    if not preview.changes:
        lines += ["No changes.", ""]
    return [f"#### {stage}", "", *lines] if lines else []


def _all(stage: str, preview: Preview) -> list[str]:
    if not preview.changes:
        return []
    shown = [line for change in sorted(preview.changes, key=_rank) for line in resource_lines(change)]
    summary = f"<details><summary>All changes in {stage}</summary>"
    return [summary, "", *fenced("diff", "\n".join(shown)), "", "</details>", ""]


def _says_more(error: str) -> bool:
    """Whether an error says what neither a dangerous change nor a broken policy does."""
    return error != "preview failed" and not is_of_protection(error)


def _quoted(error: str) -> list[str]:
    shown = error if len(error) <= _ERROR_LIMIT else f"{error[:_ERROR_LIMIT]}…"
    return [*fenced("text", shown), ""]


def _violations(found: Sequence[Violation]) -> list[str]:
    broken = [f"- :no_entry: {plain(item.message)} ({code(item.policy)})" for item in found if item.mandatory]
    reported = [f"- {plain(item.message)} ({code(item.policy)})" for item in found if not item.mandatory]
    lines = [*sorted(broken), ""] if broken else []
    if reported:
        summary = "<details><summary>Policies that this stage only reports</summary>"
        lines += [summary, "", *sorted(reported), "", "</details>", ""]
    return lines


def resource_lines(change: Change) -> list[str]:
    """A change as lines of a diff: the resource, and under it each property that differs."""
    lines = [f"{_SIGNS[change.operation]} {change.type} {change.name}"]
    for item in sorted(change.properties, key=lambda item: item.path):
        forces = "  (forces replacement)" if item.forces_replacement else ""
        lines.append(f"    {item.path}:{forces}")
        lines += [f"      {line}" for line in value_lines(item.before, item.after)]
    return lines


def _rank(change: Change) -> tuple[bool, int, str, str]:
    return not dangers(change), _ORDER.index(change.operation), change.type, change.name


def _title(change: Change) -> str:
    return f"{code(change.name)} ({plain(change.type.rpartition(':')[2])})"
