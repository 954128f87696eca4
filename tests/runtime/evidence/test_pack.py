"""Packs that somebody has changed: each is refused, and what was changed is named."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kilo.errors import BadInput
from kilo.evidence.chain import LOG, NOTE
from kilo.evidence.pack import MANIFEST, SIGNATURE, check, origin_of, write
from kilo.fle.audit.log import GENESIS, leaf_hash, merkle_root
from kilo.fle.audit.notes import Checkpoint, sign
from kilo.fle.audit.verify import origin_of as log_origin

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
Members = dict[str, bytes]


def log(count: int = 3) -> str:
    lines: list[str] = []
    previous = GENESIS
    for seq in range(count):
        text = rfc8785.dumps(
            {
                "seq": seq,
                "at": "2026-02-20T10:00:00.000+00:00",
                "actor": "ana",
                "action": "rewrap",
                "subject": "tenant/acme",
                "details": {},
                "previous": previous.hex(),
            }
        ).decode()
        previous = leaf_hash(text)
        lines.append(text)
    return "".join(f"{line}\n" for line in lines)


def note_of(text: str, stage: str = "prod", key: Ed25519PrivateKey = KEY) -> str:
    leaves = [leaf_hash(line) for line in text.splitlines()]
    return sign(Checkpoint(log_origin(stage), len(leaves), merkle_root(leaves)), key)


def files(text: str | None = None, note: str | None = None) -> Members:
    text = log() if text is None else text
    return {
        "report.html": b"<p>all is well</p>",
        "data/goals.json": b'{"rows": []}\n',
        LOG: text.encode(),
        NOTE: (note or note_of(text)).encode(),
    }


def packed(stage: str = "prod", key: Ed25519PrivateKey = KEY, given: Members | None = None) -> bytes:
    return write({"stage": stage, "soak_factor": 1.0}, given or files(), key)


def members(pack: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(given: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """As somebody packs it who has read how ours are."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for name in sorted(given):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, how
            archive.writestr(entry, given[name])
    return target.getvalue()


def problems(pack: bytes, stage: str = "prod", public: bytes = PUBLIC) -> list[str]:
    return check(pack, stage, public, {}).problems


def test_a_pack_as_it_was_built_holds() -> None:
    found = check(packed(), "prod", PUBLIC, {})
    assert (found.problems, found.entries, found.manifest["stage"]) == ([], 3, "prod")


def test_the_same_files_make_the_same_pack() -> None:
    assert packed() == packed()
    assert zipped(members(packed())) == packed()


@pytest.mark.parametrize("name", sorted(files()))
def test_an_altered_file_is_named(name: str) -> None:
    given = members(packed())
    found = problems(zipped({**given, name: given[name] + b" "}))
    assert f"{name}: altered (its SHA-256 is not the manifest's)" in found


@pytest.mark.parametrize("name", sorted(files()))
def test_a_byte_that_was_changed_in_place_is_found_in_its_file(name: str) -> None:
    pack, data = packed(), files()[name]
    at = pack.index(data) + len(data) // 2
    found = problems(pack[:at] + bytes([pack[at] ^ 1]) + pack[at + 1 :])
    assert f"{name}: altered (its SHA-256 is not the manifest's)" in found


def test_whatever_byte_is_changed_the_pack_is_refused() -> None:
    pack = packed()
    for at in range(0, len(pack), 7):
        try:
            assert problems(pack[:at] + bytes([pack[at] ^ 1]) + pack[at + 1 :]), at
        except BadInput:
            continue


def test_what_was_left_out_and_what_was_added_is_named() -> None:
    given = members(packed())
    assert problems(zipped({name: data for name, data in given.items() if name != "report.html"})) == [
        "report.html: left out"
    ]
    assert problems(zipped({**given, "data/extra.json": b"{}"})) == [
        "data/extra.json: added (the manifest does not have it)"
    ]


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_nothing_is_vouched_for_without_manifest_and_signature(name: str) -> None:
    given = members(packed())
    del given[name]
    assert problems(zipped(given)) == [f"{name}: left out; without it nothing in the pack is vouched for"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pack: pack[: len(pack) // 2], "cut short"),
        (lambda pack: pack[:-1], "cut short"),
        (lambda _: b"", "cut short"),
        (lambda _: b"PK\x05\x06" + bytes(18), "left out"),
    ],
    ids=["half", "a byte less", "nothing", "an empty archive"],
)
def test_a_truncated_pack_is_refused(change: Callable[[bytes], bytes], said: str) -> None:
    try:
        found = "; ".join(problems(change(packed())))
    except BadInput as error:
        found = str(error)
    assert said in found


@pytest.mark.parametrize(
    "change", [lambda pack: pack + b"\n", lambda pack: b"#!/bin/sh\n" + pack], ids=["behind", "before"]
)
def test_bytes_that_belong_to_no_member_are_found(change: Callable[[bytes], bytes]) -> None:
    try:
        found = "; ".join(problems(change(packed())))
    except BadInput as error:
        found = str(error)
    assert found


def test_a_pack_that_another_key_signed_again_is_refused() -> None:
    given = members(packed())
    given["data/goals.json"] = b'{"rows": ["all met"]}\n'
    again = write({"stage": "prod", "soak_factor": 1.0}, {n: given[n] for n in files()}, OTHER)
    assert problems(again) == [
        "manifest.note: it is not signed by the audit key; nothing in the pack is vouched for"
    ]


def test_a_manifest_that_was_written_anew_is_not_what_was_signed() -> None:
    given = members(packed())
    manifest = json.loads(given[MANIFEST])
    given["report.html"] = b"<p>all is better</p>"
    manifest["files"]["report.html"] = {
        "sha256": sha256(given["report.html"]).hexdigest(),
        "size": len(given["report.html"]),
    }
    given[MANIFEST] = rfc8785.dumps(manifest)
    assert problems(zipped(given)) == ["manifest.json: altered (it is not what was signed)"]


def test_a_pack_of_another_stage_is_refused() -> None:
    pack = packed("stage", given=files(note=note_of(log(), "stage")))
    assert problems(pack, "stage") == []
    assert problems(pack, "prod") == [
        "manifest.note: it is signed as kilo/stage/evidence, not as kilo/prod/evidence"
    ]


def test_a_checkpoint_is_no_signature_of_a_pack() -> None:
    given = members(packed())
    given[SIGNATURE] = given[NOTE]
    assert problems(zipped(given)) == [
        "manifest.note: it is signed as kilo/prod/fle-audit, not as kilo/prod/evidence"
    ]
    assert origin_of("prod") != log_origin("prod")


@pytest.mark.parametrize(
    ("text", "note", "said"),
    [
        (log(2), note_of(log(3)), "has 2 entries, and 3 were signed"),
        (log(4), note_of(log(3)), "has 4 entries, and only 3 were signed"),
        (
            log().replace("ana", "eve", 1),
            note_of(log()),
            "its link is broken: the entry before it was altered",
        ),
        (log(), note_of(log(), "stage"), "it is of log kilo/stage/fle-audit, not of kilo/prod/fle-audit"),
        (log(), note_of(log(), key=OTHER), "it is not signed by the audit key"),
        (log().replace("rewrap", "shred", 1), None, "shred: 0 people signed it instead of 2"),
    ],
    ids=["cut", "grown", "altered", "another stage's", "another key's", "unsigned act"],
)
def test_an_audit_log_that_does_not_hold_is_found_though_the_pack_is_signed(
    text: str, note: str | None, said: str
) -> None:
    found = problems(packed(given=files(text, note)))
    assert any(said in each for each in found), found


def test_a_pack_without_an_audit_log_is_none() -> None:
    given = files()
    del given[LOG]
    assert problems(packed(given=given)) == [f"{LOG}: the pack has no audit log with its checkpoint"]


def test_an_archive_that_could_unpack_to_anything_is_refused() -> None:
    with pytest.raises(BadInput, match="compressed or encrypted"):
        problems(zipped({**members(packed()), "data/bomb.json": bytes(10_000_000)}, zipfile.ZIP_DEFLATED))
    for name in ("../outside", "/etc/passwd", "data//x", "Data/x", "data/.x"):
        with pytest.raises(BadInput, match="no name of a pack's"):
            problems(zipped({**members(packed()), name: b""}))


def test_a_member_that_stands_twice_is_refused() -> None:
    target = io.BytesIO(packed())
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("report.html", b"another")
    with pytest.raises(BadInput, match="twice"):
        problems(target.getvalue())


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b'{"files": 3}', b'{"files": {"a": {}}}', b"[" * 50_000])
def test_a_signed_manifest_that_is_none_is_said_so(manifest: bytes) -> None:
    given = files()
    note = sign(Checkpoint(origin_of("prod"), len(manifest), sha256(manifest).digest()), KEY)
    assert problems(zipped({**given, MANIFEST: manifest, SIGNATURE: note.encode()})) == [
        "manifest.json: is not the manifest of a pack"
    ]
