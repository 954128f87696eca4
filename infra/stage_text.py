"""Edits of a stage's file that leave every other character as it is.

The YAML parser says where something stands; the text is edited there, since writing a parsed document back
would lay out anew what people have aligned and commented. What results is checked whole before it is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.configuration import read_stage_file
from infra.settings import Settings


def write_checked(path: Path, text: str) -> Settings:
    """Put ``text`` in place of a stage's file, if it is right.

    Raises:
        BadInput: it is not; nothing is written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".kilo-") as folder:
        # The same name, so that messages name the file that is meant.
        beside = Path(folder) / path.name
        beside.write_text(text, encoding="utf-8")
        settings = read_stage_file(beside)
        beside.chmod(path.stat().st_mode)
        os.replace(beside, path)
    return settings


def end_of_block(lines: Sequence[str], first: int) -> int:
    """The line after the last of what begins at ``first``; comments and blank lines after it are not its."""
    depth = indent(lines[first])
    end = first + 1
    for number in range(first + 1, len(lines)):
        line = lines[number]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if indent(line) <= depth:
            break
        end = number + 1
    return end


def indent(line: str) -> int:
    """How far a line is indented."""
    return len(line) - len(line.lstrip())
