"""Puts a span's name into ``monitoring.key_spans`` of a stage's file, however the file has it laid out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from infra.configuration import read_stage_file
from infra.stage_text import end_of_block, indent, write_checked

_KEY, _LIST = "kilo:monitoring", "key_spans"


def allow_span(path: Path, name: str) -> bool:
    """Add a name; says no where it is there already.

    Raises:
        BadInput: the file holds mistakes, or would with the name; nothing is written.
    """
    if name in read_stage_file(path).monitoring.key_spans:
        return False
    text = path.read_text(encoding="utf-8")
    config: Any = YAML().load(text)["config"]
    write_checked(path, _with_name(text, config, json.dumps(name, ensure_ascii=False)))
    return True


def _with_name(text: str, config: Any, quoted: str) -> str:
    lines = text.splitlines(keepends=True)
    monitoring = config[_KEY]
    names = monitoring.get(_LIST)
    if names is not None and names.fa.flow_style() is False:
        first = names.lc.item(len(names) - 1)[0]
        dash = lines[first].partition("-")[0]
        return _inserted(lines, end_of_block(lines, first), f"{dash}- {quoted}\n")
    if names is not None:
        return _in_brackets(text, lines, names, quoted)
    entry = f"{_LIST}: [{quoted}]"
    if monitoring.fa.flow_style():
        return _in_brackets(text, lines, monitoring, entry)
    first = config.lc.key(_KEY)[0]
    inside = " " * indent(lines[monitoring.lc.line])
    return _inserted(lines, end_of_block(lines, first), f"{inside}{entry}\n")


def _inserted(lines: Sequence[str], at: int, line: str) -> str:
    before = [*lines[:at]]
    if not before[-1].endswith("\n"):
        before[-1] += "\n"
    return "".join([*before, line, *lines[at:]])


def _in_brackets(text: str, lines: Sequence[str], node: Any, added: str) -> str:
    # At the beginning: whatever follows, a comment or another line, stays as it is.
    at = sum(map(len, lines[: node.lc.line])) + node.lc.col + 1
    rest = text[at:]
    space = " " if rest.startswith(" ") else ""
    return f"{text[:at]}{space}{added}{', ' if len(node) else ''}{rest.removeprefix(space)}"
