"""The audit log in a pack: its entries, the newest checkpoint over them, and the check of both.

An entry that holds what a pack must not show (somebody wrote an address into a reason) stands as its hash
alone: chain and checkpoint verify with that as well, and that it is withheld is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilo.fle.audit.log import GENESIS, Entry, leaf_hash, merkle_root
from kilo.fle.audit.notes import BadNote, verify
from kilo.fle.audit.signatures import People, check_signatures
from kilo.fle.audit.verify import lines_of, origin_of

LOG, NOTE = "audit/log.jsonl", "audit/checkpoint.note"
_WITHHELD = re.compile(r'\{"withheld":"([0-9a-f]{64})"\}')


def render_log(entries: Sequence[Entry], is_fit: Callable[[str], bool]) -> str:
    """A line an entry, of those that are not fit its hash."""
    return "".join(
        f"{entry.text}\n" if is_fit(entry.text) else f'{{"withheld":"{entry.hash.hex()}"}}\n'
        for entry in entries
    )


@dataclass
class CheckedLog:
    """What was found of a log."""

    problems: list[str] = field(default_factory=list[str])
    entries: int = 0
    signatures: int = 0
    withheld: int = 0


def check_log(text: str, note: str, stage: str, public: bytes, people: People) -> CheckedLog:
    """Verify chain, checkpoint and people's signatures."""
    found = CheckedLog()
    leaves: list[bytes] = []
    shown: list[Entry] = []
    previous = GENESIS
    for seq, line in enumerate(lines_of(text)):
        found.entries += 1
        if match := _WITHHELD.fullmatch(line):
            found.withheld += 1
            previous = bytes.fromhex(match[1])
            leaves.append(previous)
            continue
        problem = _problem(line, seq, previous)
        if problem:
            found.problems.append(f"{LOG}: entry {seq}: {problem}")
        previous = leaf_hash(line)
        leaves.append(previous)
        shown.append(Entry(seq, line, previous))
    try:
        signed = verify(note, public)
    except BadNote as error:
        found.problems.append(f"{NOTE}: {error}")
        return found
    if signed.origin != origin_of(stage):
        found.problems.append(f"{NOTE}: it is of log {signed.origin}, not of {origin_of(stage)}")
    if len(leaves) < signed.size:
        found.problems.append(f"{LOG}: has {len(leaves)} entries, and {signed.size} were signed")
    elif len(leaves) > signed.size:
        found.problems.append(f"{LOG}: has {len(leaves)} entries, and only {signed.size} were signed")
    elif merkle_root(leaves) != signed.root:
        found.problems.append(f"{NOTE}: does not sign the entries of {LOG}")
    found.signatures, problems = check_signatures(shown, stage, people)
    found.problems += [f"{LOG}: {problem}" for problem in problems]
    return found


def _problem(line: str, seq: int, previous: bytes) -> str:
    try:
        content: Any = json.loads(line)
        number, link = content["seq"], bytes.fromhex(content["previous"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "altered (its text is no entry)"
    if number != seq:
        return f"reordered or dropped (it was written as entry {number})"
    return "" if link == previous else "its link is broken: the entry before it was altered"
