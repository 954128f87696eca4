"""Text that others wrote, put into Markdown so that it stays text.

A resource's name, a policy's message and an error can hold what a branch's author likes: fences, HTML,
mentions, links. None of it may end the block it is shown in, call for anybody or pose as the
comment's own words. Secrets go before marks are escaped: afterwards none is recognized.

https://github.github.com/gfm/
"""

from __future__ import annotations

import re

from kilo.changes.redaction import redact

# An underscore within a word is none of emphasis.
_SPECIAL = re.compile(r"([\\`*\[\]<>#~|@&]|(?<!\w)_|_(?!\w))")
_FENCE = re.compile(r" {0,3}(`{3,})([^`]*)$")
_NOTE = "… cut here: the whole diff is in the job's artifact.\n"
_OPEN, _CLOSE = "<details>", "</details>"


def fenced(language: str, text: str) -> list[str]:
    """``text`` as a code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text, fence]


def code(text: str) -> str:
    """``text`` as code within a line, on one line."""
    line = " ".join(redact(text).split())
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def plain(text: str) -> str:
    """``text`` as words on one line: no mark-up, HTML, mention or reference; code within it stays code."""
    line = " ".join(redact(text).split())
    parts = re.split(r"(?<!`)(`[^`]+`)(?!`)", line)
    return "".join(part if index % 2 else _SPECIAL.sub(_as_entity, part) for index, part in enumerate(parts))


def _as_entity(found: re.Match[str]) -> str:
    # Entities rather than backslashes: no mention, tag or reference to an issue is seen behind them.
    return f"&#{ord(found[1])};" if found[1] in "<>&@#`[]" else f"\\{found[1]}"


def cut(text: str, limit: int) -> str:
    """The beginning of ``text`` in ``limit`` characters, with what is open there closed, and a note of it."""
    room = limit - len(_NOTE) - 2
    kept = text[:room].rpartition("\n")[0]
    # What closes depends on where it is cut, and needs room of its own.
    while len(closed := kept + _closing(kept)) > room:
        kept = kept.rpartition("\n")[0]
    return f"{closed}\n\n{_NOTE}"


def _closing(text: str) -> str:
    """What ends the code block and the folded parts that are open at the end of ``text``."""
    fence, folded = "", 0
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            if found and len(found[1]) >= len(fence) and not found[2].strip():
                fence = ""
        elif found:
            fence = found[1]
        else:
            folded += line.startswith(_OPEN) - line.startswith(_CLOSE)
    return (f"\n{fence}" if fence else "") + f"\n\n{_CLOSE}" * folded
