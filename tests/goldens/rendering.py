"""What the goldens hold: the text of a preview, without what differs from run to run."""

from __future__ import annotations

import re

from kilo.changes.comment import render_comment, render_json
from kilo.changes.inventory import render_inventory
from kilo.changes.preview import Preview
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


def comment(found: Preview) -> str:
    """The comment of one stage's preview."""
    return stable(render_comment({STAGE: found}))


def every_text(found: Preview) -> list[str]:
    """All that is ever shown of a preview's changes."""
    by_stage = {STAGE: found}
    return [render_comment(by_stage), render_comment(by_stage, limited=False), render_json(by_stage)]


def inventory(events: str) -> str:
    """The golden of a whole stage."""
    return stable(render_inventory(events))
