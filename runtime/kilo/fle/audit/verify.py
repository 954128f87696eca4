"""Checkpoints: making them, and checking log, signatures and store against each other.

A checkpoint is ``entries-FROM-TO.jsonl``, the entries since the one before, ``checkpoint-SIZE.note``, signed
over all of them, and ``consistency-FROM-TO.proof`` between the two checkpoints. The store alone
is therefore a whole log, and what differs between it and the database can be named entry by entry.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.rows import TupleRow

from kilo.errors import CheckFailed
from kilo.fle.audit.consistency import consistency_proof, is_consistent
from kilo.fle.audit.log import GENESIS, Entry, leaf_hash, merkle_root, read, standing_still
from kilo.fle.audit.notes import BadNote, Checkpoint, parse, sign, verify
from kilo.fle.audit.signatures import People, check_signatures
from kilo.fle.audit.states import check_states
from kilo.fle.audit.store import Store

_NOTE = re.compile(r"checkpoint-(\d{10})\.note")
_ENTRIES = re.compile(r"entries-(\d{10})-(\d{10})\.jsonl")
_PROOF = re.compile(r"consistency-(\d{10})-(\d{10})\.proof")


EXPORTED_LOG = "database.jsonl"
"""The database's log in an export; what is beside it is the store."""


@dataclass
class Report:
    """What a verification found. ``problems`` is empty when all holds."""

    entries: int = 0
    checkpoints: int = 0
    uncovered: int = 0
    signatures: int = 0
    """People's signatures that verify."""
    problems: list[str] = field(default_factory=list[str])


def lines_of(text: str) -> list[str]:
    """The lines of an entries file; only a line feed ends one, whatever else an entry holds."""
    return text.removesuffix("\n").split("\n") if text else []


def origin_of(stage: str) -> str:
    """The log's name in its checkpoints."""
    return f"kilo/{stage}/fle-audit"


def checkpoint(
    connection: psycopg.Connection[TupleRow], store: Store, stage: str, key: Ed25519PrivateKey
) -> Checkpoint | None:
    """Sign the log as it stands and keep it; ``None`` when no entry is new.

    A crash between the objects leaves entries without a note: the next run writes the same again.

    Raises:
        CheckFailed: the log is not a continuation of what the store holds, or contradicts the tables whose
            story it tells; signing it would cover that up.
    """
    with standing_still(connection):
        entries = read(connection)
        contradictions = check_states(connection, entries)
    covered = max((int(match[1]) for match in map(_NOTE.fullmatch, store.names()) if match), default=0)
    if covered:
        _check_continues(entries, store.read(f"checkpoint-{covered:010d}.note"), covered)
    if contradictions:
        msg = "\n".join(
            ["the log and the tables contradict each other, so it is not signed:", *contradictions]
        )
        raise CheckFailed(msg)
    if len(entries) == covered:
        _note_covered(connection, covered)
        return None
    leaves = [entry.hash for entry in entries]
    made = Checkpoint(origin_of(stage), len(entries), merkle_root(leaves))
    lines = "".join(f"{entry.text}\n" for entry in entries[covered:])
    store.create(f"entries-{covered:010d}-{len(entries):010d}.jsonl", lines)
    if covered:
        proof = "".join(f"{b64encode(node).decode()}\n" for node in consistency_proof(leaves, covered))
        store.create(f"consistency-{covered:010d}-{len(entries):010d}.proof", proof)
    store.create(f"checkpoint-{len(entries):010d}.note", sign(made, key))
    _note_covered(connection, made.size)
    return made


def _note_covered(connection: psycopg.Connection[TupleRow], size: int) -> None:
    """Tell monitors, which can't look into the store, how far the log is signed."""
    if size:
        connection.execute("INSERT INTO fle_checkpoints (size) VALUES (%s) ON CONFLICT DO NOTHING", (size,))


def _check_continues(entries: Sequence[Entry], note: str, covered: int) -> None:
    if len(entries) >= covered:
        try:
            root = parse(note).root
        except BadNote:
            root = b""
        if merkle_root([leaf_hash(entry.text) for entry in entries[:covered]]) == root:
            return
    msg = f"the log is not what checkpoint-{covered:010d}.note signed; see `kilo fle audit verify`"
    raise CheckFailed(msg)


def stored_entries(store: Store, report: Report) -> list[Entry]:
    """The log as the store has it."""
    texts: dict[int, str] = {}
    for match in map(_ENTRIES.fullmatch, store.names()):
        if match is None:
            continue
        start, end = int(match[1]), int(match[2])
        lines = lines_of(store.read(match[0]))
        if len(lines) != end - start:
            report.problems.append(f"{match[0]}: has {len(lines)} entries instead of {end - start}")
        for seq, text in enumerate(lines, start):
            if texts.setdefault(seq, text) != text:
                report.problems.append(f"entry {seq}: the store has two different texts of it")
    return [Entry(seq, text, leaf_hash(text)) for seq, text in sorted(texts.items())]


def check_chain(entries: Sequence[Entry], report: Report, place: str) -> None:
    """Check each entry's hash, number and link, and name what was altered, dropped or reordered."""
    previous, expected = GENESIS, 0
    hashes = {entry.hash: entry.seq for entry in entries}
    for entry in entries:
        try:
            content = json.loads(entry.text)
            seq, link = content["seq"], bytes.fromhex(content["previous"])
        except (ValueError, KeyError, TypeError, RecursionError):
            report.problems.append(f"{place}: entry {entry.seq}: altered (its text is no entry)")
            previous, expected = entry.hash, entry.seq + 1
            continue
        if leaf_hash(entry.text) != entry.hash:
            report.problems.append(f"{place}: entry {entry.seq}: altered (its hash does not match its text)")
        if entry.seq > expected:
            gone = f"{expected}" if entry.seq == expected + 1 else f"{expected} to {entry.seq - 1}"
            report.problems.append(f"{place}: entry {gone}: dropped")
        elif seq != entry.seq:
            report.problems.append(f"{place}: entry {entry.seq}: reordered (it was written as entry {seq})")
        elif link != previous:
            what = f"it follows entry {hashes[link]}" if link in hashes else "the entry before it was altered"
            report.problems.append(f"{place}: entry {entry.seq}: its link is broken: {what}")
        previous, expected = entry.hash, entry.seq + 1


def check(
    store: Store, stage: str, public: bytes, people: People, database: Sequence[Entry] | None = None
) -> Report:
    """Verify the store by itself and, where there is one, the database's log against it.

    ``public`` is the key that signs checkpoints; ``people`` are those who sign what they do.
    """
    report = Report()
    stored = stored_entries(store, report)
    check_chain(stored, report, "store")
    covered = 0
    roots: dict[int, bytes] = {}
    for match in map(_NOTE.fullmatch, store.names()):
        if match is None:
            continue
        size = int(match[1])
        report.checkpoints += 1
        try:
            note = verify(store.read(match[0]), public)
        except BadNote as error:
            report.problems.append(f"{match[0]}: {error}")
            continue
        if note.origin != origin_of(stage) or note.size != size:
            report.problems.append(f"{match[0]}: it is of log {note.origin} at size {note.size}")
        elif len(stored) < size or merkle_root([entry.hash for entry in stored[:size]]) != note.root:
            report.problems.append(f"{match[0]}: does not sign the entries that the store holds")
        else:
            covered = max(covered, size)
            roots[size] = note.root
    _check_proofs(store, roots, report)
    if database is None:
        report.entries, report.uncovered = len(stored), len(stored) - covered
        _check_people(stored, stage, people, report)
        return report
    check_chain(database, report, "database")
    by_seq = {entry.seq: entry for entry in database}
    for entry in stored:
        there = by_seq.get(entry.seq)
        if there is None:
            report.problems.append(f"entry {entry.seq}: is in the store and was dropped from the database")
        elif there.text != entry.text:
            report.problems.append(f"entry {entry.seq}: altered in the database (the store has another text)")
    report.entries, report.uncovered = len(database), max(0, len(database) - covered)
    _check_people(database, stage, people, report)
    return report


def _check_proofs(store: Store, roots: Mapping[int, bytes], report: Report) -> None:
    for match in map(_PROOF.fullmatch, store.names()):
        if match is None:
            continue
        size, larger = int(match[1]), int(match[2])
        if size not in roots or larger not in roots:
            # A run that was killed before its note left it.
            continue
        try:
            nodes = [b64decode(line, validate=True) for line in lines_of(store.read(match[0]))]
        except ValueError:
            nodes = [b""]
        if not is_consistent(nodes, (size, roots[size]), (larger, roots[larger])):
            report.problems.append(
                f"{match[0]}: does not show that the later checkpoint extends the earlier one"
            )


def _check_people(entries: Sequence[Entry], stage: str, people: People, report: Report) -> None:
    report.signatures, problems = check_signatures(entries, stage, people)
    report.problems += problems


def export(connection: psycopg.Connection[TupleRow], source: Store, target: Store) -> int:
    """Copy the store and the database's newest entries to ``target``, for an auditor who is offline."""
    for name in source.names():
        target.create(name, source.read(name))
    entries = read(connection)
    lines = "".join(f"{entry.text}\n" for entry in entries)
    target.create(EXPORTED_LOG, lines)
    return len(entries)
