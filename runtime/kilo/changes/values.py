"""Shows how one value became another: short ones side by side, long ones by the lines that differ."""

from __future__ import annotations

import difflib
import json
import operator
from itertools import starmap, takewhile
from typing import Any

_SHORT = 100
_LINES = 24
_WIDTH = 160
_CONTEXT = 40
# What stands in the engine's JSON for a value known only afterwards: sdk/go/common/resource/plugin/rpc.go.
UNKNOWN = frozenset(
    {
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)


def value_lines(before: object, after: object) -> list[str]:
    """Lines that begin with ``-`` for what goes and with ``+`` for what comes."""
    if isinstance(after, str) and after in UNKNOWN:
        return ["+ (known after the deployment)"]
    old, new = _text(before), _text(after)
    if all(len(text) <= _SHORT and "\n" not in text for text in (old, new)):
        return [f"- {old}"] * (before is not None) + [f"+ {new}"] * (after is not None)
    if before is None or after is None:
        sign, text = ("+", new) if before is None else ("-", old)
        return _cut([f"{sign} {line}" for line in text.splitlines()])
    if "\n" not in old and "\n" not in new:
        return _cut([f"- {_around(old, new)}", f"+ {_around(new, old)}"])
    changed = [
        f"{line[0]} {line[1:]}"
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        if line[0] in "+-" and not line.startswith(("---", "+++"))
    ]
    return _cut(changed)


def _around(text: str, other: str) -> str:
    """The part of ``text`` that ``other`` does not have, and a little before and after it."""
    same = _same(text, other)
    same_end = _same(text[same:][::-1], other[same:][::-1])
    begin, end = max(same - _CONTEXT, 0), min(len(text) - same_end + _CONTEXT, len(text))
    return f"{'…' * (begin > 0)}{text[begin:end]}{'…' * (end < len(text))}"


def _same(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(takewhile(bool, starmap(operator.eq, zip(one, other, strict=False))))


def _cut(lines: list[str]) -> list[str]:
    shown = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines[:_LINES]]
    left = len(lines) - _LINES
    return [*shown, f"… {left} more lines"] if left > 0 else shown


def _text(value: object) -> str:
    """A value as text; JSON, also inside text, with a line for each of its parts when it is long."""
    if isinstance(value, str):
        parsed = _parsed(value)
        if parsed is None:
            return value if "\n" in value else json.dumps(value, ensure_ascii=False)
        value = parsed
    short = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return short if len(short) <= _SHORT else json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1)


def _parsed(text: str) -> Any:
    if text[:1] not in "{[" or not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None
