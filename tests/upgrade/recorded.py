"""The states that the last release's program made, as they were recorded when it was released.

They are those of throw-away places: their secrets are random, open nothing, and stand in them in the clear.
"""

from __future__ import annotations

import gzip
import re
from fnmatch import fnmatchcase
from pathlib import Path

from kilo.changes.preview import Preview, parse_events
from kilo.errors import CheckFailed
from sandbox.rehearsal import Rehearsal

ROOT = Path(__file__).parents[2]
STAGES = ("dev", "stage", "prod")
_STATES = Path(__file__).parent / "states"
_SECTION = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^### Shown in previews\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)


def record() -> None:
    """Carry every stage out and keep its state."""
    _STATES.mkdir(exist_ok=True)
    for stage in STAGES:
        with Rehearsal() as rehearsal:
            rehearsal.carry_out(ROOT, stage)
            state = rehearsal.secret_values(ROOT, stage)
        (_STATES / f"{stage}.json.gz").write_bytes(gzip.compress(state.encode(), mtime=0))


def preview(stage: str, program: Path = ROOT) -> Preview:
    """What ``program`` would change of the recorded state of ``stage``.

    Raises:
        CheckFailed: the preview fails without saying why in its events.
    """
    state = gzip.decompress((_STATES / f"{stage}.json.gz").read_bytes()).decode()
    with Rehearsal() as rehearsal:
        rehearsal.take_over(program, stage, state)
        said = rehearsal.preview(program, stage)
    found = parse_events(said.events)
    if said.refused and not found.errors:
        raise CheckFailed(said.said)
    return found


def announced(changelog: str) -> list[str]:
    """The patterns of resource names that the changelog announces to differ, as ``tenant-keys-*``."""
    section = _SECTION.search(changelog)
    shown = _SHOWN.search(section[1]) if section else None
    return re.findall(r"`([^`\s]+)`", shown[1]) if shown else []


def unannounced(found: Preview, patterns: list[str]) -> list[str]:
    """The changes that no pattern covers."""
    return [
        f"{change.operation} {change.type} {change.name}"
        for change in found.changes
        if not any(fnmatchcase(change.name, pattern) for pattern in patterns)
    ]


def needless(found: list[Preview], patterns: list[str]) -> list[str]:
    """The patterns that cover no change of any stage."""
    names = {change.name for preview in found for change in preview.changes}
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
