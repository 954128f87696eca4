"""What the goldens hold: the text of a preview, without what differs from run to run."""

from __future__ import annotations

import re

from runtime.changes.comment import render_comment, render_json
from runtime.changes.inventory import render_inventory
from runtime.changes.preview import parse_events
from tests.goldens.scenarios import ROOT, STAGE

COMMENTS = ROOT / "tests" / "goldens" / "comments"
PREVIEWS = ROOT / "tests" / "goldens" / "previews"

_CHANGING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "(uuid)"),
    # Checksums of what holds ids; what they are checksums of is shown beside them.
    (re.compile(r"[0-9a-f]{64}"), "(checksum)"),
    (re.compile(r"/tmp/[^/ ]+"), "/tmp/(folder)"),
)


def stable(text: str) -> str:
    """``text`` without ids that servers choose."""
    for pattern, replacement in _CHANGING:
        text = pattern.sub(replacement, text)
    return text


def comment(events: str) -> str:
    """The comment of one stage's preview."""
    return stable(render_comment({STAGE: parse_events(events)}))


def every_text(events: str) -> list[str]:
    """All that is ever shown or kept of a preview."""
    found = {STAGE: parse_events(events)}
    return [
        render_comment(found),
        render_comment(found, limited=False),
        render_json(found),
        render_inventory(events),
    ]


def inventory(events: str) -> str:
    """The golden of a whole stage."""
    return stable(render_inventory(events))
