"""The pack: one ZIP file whose every byte is signed for, so that an auditor checks it without the stage.

Members are stored, not compressed, in the order of their names and with one date, so a pack has one form
only: a reader makes it anew from the members and compares, and bytes that belong to none are found.
``manifest.json`` (RFC 8785) has the stage, the time and the SHA-256 of every other member; ``manifest.note``
is a C2SP signed note by the key that signs the audit log's checkpoints, over the manifest's length and
SHA-256. The note's name has the stage in it, so a pack of one stage is none of another, and no checkpoint is
a pack.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kilo.errors import BadInput
from kilo.evidence.chain import LOG, NOTE, check_log
from kilo.fle.audit.notes import BadNote, Checkpoint, parse, sign, verify
from kilo.fle.audit.signatures import People

FORMAT = "kilo-evidence/1"
MANIFEST, SIGNATURE, REPORT = "manifest.json", "manifest.note", "report.html"
LARGEST_BYTES = 512 * 1024 * 1024
"""Of a pack; a stage's graphs and logs are a hundredth of it."""
_MOST_MEMBERS = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
_HEADER_BYTES = 30
"""Of a member, before its name (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.7)."""
_DATE = (1980, 1, 1, 0, 0, 0)


def origin_of(stage: str) -> str:
    """The signed note's name."""
    return f"kilo/{stage}/evidence"


def write(facts: Mapping[str, Any], files: Mapping[str, bytes], key: Ed25519PrivateKey) -> bytes:
    """The pack of ``files``, signed.

    Args:
        facts: what the manifest says besides: ``stage`` and whatever else.
        files: every member by its name.
        key: the audit key.
    """
    manifest = rfc8785.dumps(
        {
            **facts,
            "format": FORMAT,
            "files": {
                name: {"sha256": sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
            },
        }
    )
    note = sign(Checkpoint(origin_of(facts["stage"]), len(manifest), sha256(manifest).digest()), key)
    return _zip({**files, MANIFEST: manifest, SIGNATURE: note.encode()})


def manifest_of(data: bytes) -> bytes:
    """The manifest of a pack that was just written."""
    return _members(data)[MANIFEST]


def _zip(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, members[name])
    return target.getvalue()


@dataclass
class Checked:
    """What a verification found. ``problems`` is empty when all holds."""

    problems: list[str] = field(default_factory=list[str])
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    members: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    entries: int = 0
    """Of the audit log."""
    signatures: int = 0
    """Of people in the audit log."""


def check(pack: bytes, stage: str, public: bytes, people: People) -> Checked:
    """Verify a pack by itself.

    Args:
        pack: the file's bytes.
        stage: whose pack it must be.
        public: the audit key's public half, from elsewhere than the pack.
        people: the keys of those who sign what they do, by name.

    Raises:
        BadInput: the file is no pack at all, or cut short.
    """
    found = Checked(members=_members(pack))
    members = found.members
    if _zip(members) != pack:
        found.problems.append(
            "the file holds bytes that belong to no member of it: something was added to it"
        )
    text, note = members.get(MANIFEST), members.get(SIGNATURE)
    if text is None or note is None:
        missing = MANIFEST if text is None else SIGNATURE
        found.problems.append(f"{missing}: left out; without it nothing in the pack is vouched for")
        return found
    if not _check_signature(note.decode(errors="replace"), text, stage, public, found):
        return found
    try:
        manifest: dict[str, Any] = json.loads(text)
        listed = {name: (str(each["sha256"]), int(each["size"])) for name, each in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found.problems.append(f"{MANIFEST}: is not the manifest of a pack")
        return found
    found.manifest = manifest
    if manifest.get("format") != FORMAT:
        found.problems.append(f"{MANIFEST}: format {manifest.get('format')!r}; this kilo reads {FORMAT}")
    if manifest.get("stage") != stage:
        found.problems.append(f"{MANIFEST}: it is of stage {manifest.get('stage')}, not of {stage}")
    for name, (digest, size) in sorted(listed.items()):
        if name not in members:
            found.problems.append(f"{name}: left out")
        elif len(members[name]) != size or sha256(members[name]).hexdigest() != digest:
            found.problems.append(f"{name}: altered (its SHA-256 is not the manifest's)")
    found.problems += [
        f"{name}: added (the manifest does not have it)"
        for name in sorted(members.keys() - listed.keys() - {MANIFEST, SIGNATURE})
    ]
    _check_audit(stage, public, people, found)
    return found


def _members(pack: bytes) -> dict[str, bytes]:
    if len(pack) > LARGEST_BYTES:
        msg = f"it has {len(pack)} bytes, and a pack at most {LARGEST_BYTES}"
        raise BadInput(msg)
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(pack)) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_MEMBERS:
                msg = f"it has {len(entries)} members, and a pack at most {_MOST_MEMBERS}"
                raise BadInput(msg)
            for entry in entries:
                _check_entry(entry, members)
                members[entry.filename] = _content(archive, entry, pack)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        msg = "it is no pack of evidence, or it was cut short or damaged: its ZIP can't be read"
        raise BadInput(msg) from error
    return members


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, pack: bytes) -> bytes:
    """A member's bytes; those of an altered one too, whose checksum in the ZIP does not hold any more."""
    try:
        return archive.read(entry)
    except zipfile.BadZipFile:
        header = pack[entry.header_offset : entry.header_offset + _HEADER_BYTES]
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        start = entry.header_offset + _HEADER_BYTES + name + extra
        return pack[start : start + entry.file_size]


def _check_entry(entry: zipfile.ZipInfo, members: Mapping[str, bytes]) -> None:
    if not _NAME.fullmatch(entry.filename) or entry.filename in members:
        what = "twice" if entry.filename in members else "no name of a pack's"
        msg = f"member {entry.filename!r}: {what}; it is no pack of evidence"
        raise BadInput(msg)
    # A member that is compressed could unpack to anything; ours are stored.
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size > LARGEST_BYTES:
        msg = f"member {entry.filename}: compressed or encrypted; it is no pack of evidence"
        raise BadInput(msg)


def _check_signature(note: str, manifest: bytes, stage: str, public: bytes, found: Checked) -> bool:
    """Whether the note is the audit key's, and of this manifest."""
    try:
        claimed = parse(note)
    except BadNote as error:
        found.problems.append(f"{SIGNATURE}: {error}")
        return False
    if claimed.origin != origin_of(stage):
        found.problems.append(f"{SIGNATURE}: it is signed as {claimed.origin}, not as {origin_of(stage)}")
        return False
    try:
        verify(note, public)
    except BadNote as error:
        found.problems.append(f"{SIGNATURE}: {error}; nothing in the pack is vouched for")
        return False
    if (claimed.size, claimed.root) != (len(manifest), sha256(manifest).digest()):
        found.problems.append(f"{MANIFEST}: altered (it is not what was signed)")
    return True


def _check_audit(stage: str, public: bytes, people: People, found: Checked) -> None:
    log, note = found.members.get(LOG), found.members.get(NOTE)
    if log is None or note is None:
        found.problems.append(
            f"{LOG if log is None else NOTE}: the pack has no audit log with its checkpoint"
        )
        return
    checked = check_log(log.decode(errors="replace"), note.decode(errors="replace"), stage, public, people)
    found.entries, found.signatures = checked.entries, checked.signatures
    found.problems += checked.problems
