"""Every parser against what nobody meant: it gives its own error, or what it was given comes back."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilo.errors import BadInput, CheckFailed, KiloError
from kilo.fle import formats
from kilo.fle.audit.log import Entry, leaf_hash
from kilo.fle.audit.notes import BadNote, Checkpoint, load_private_key, parse, public_bytes, sign, verify
from kilo.fle.audit.store import FolderStore
from kilo.fle.audit.verify import Report, check, check_chain
from kilo.fle.deterministic import make_token
from kilo.fle.normalisation import Normalisation, NotNormalisable, normalise
from kilo.fle.rotation.documents import parse_document
from kilo.fle.rotation.plan import Plan
from kilo.outbox import strict_json

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
NOTE = sign(Checkpoint("kilo/test/fle-audit", 12, b"r" * 32), KEY)
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text_like_note = st.lists(
    st.sampled_from(["\n", "\n\n", "— ", "kilo/test/fle-audit", "12", "٣", "AAAA", " ", "é"])
).map("".join)


@many
@given(raw=st.binary(max_size=200))
def test_every_value_that_decodes_is_the_one_text_of_its_bytes(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert formats.to_text(raw) == text
    if raw:
        assert formats.to_bytes(text) == raw


@many
@given(raw=st.binary(min_size=1, max_size=8), bits=st.integers(1, 15))
def test_spare_bits_are_noticed(raw: bytes, bits: int) -> None:
    """A text whose last character differs only in bits that decoding drops."""
    text = base64.b64encode(raw).decode()
    padding = text.count("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = {0: 1, 1: 4, 2: 16}[padding]
    if bits >= spare:
        return
    last = len(text) - padding - 1
    other = text[:last] + alphabet[alphabet.index(text[last]) ^ bits] + text[last + 1 :]
    assert base64.b64decode(other) == raw
    with pytest.raises(KiloError):
        formats.to_bytes(other)


@many
@given(note=st.one_of(st.text(), text_like_note, st.integers(0, len(NOTE)).map(lambda end: NOTE[:end])))
def test_a_note_is_a_checkpoint_or_a_bad_note(note: str) -> None:
    try:
        parse(note)
        verify(note, PUBLIC)
    except BadNote:
        return
    assert verify(note, PUBLIC) == Checkpoint("kilo/test/fle-audit", 12, b"r" * 32)


@pytest.mark.parametrize("size", ["٣", "012", "-1", "9" * 5000, "1_0", "+1", ""])
def test_only_a_plain_number_is_a_size(size: str) -> None:
    with pytest.raises(BadNote):
        parse(NOTE.replace("\n12\n", f"\n{size}\n"))


@many
@given(at=st.integers(0, len(NOTE) - 1), other=st.characters())
def test_no_character_of_a_note_can_be_exchanged(at: int, other: str) -> None:
    changed = NOTE[:at] + other + NOTE[at + 1 :]
    if changed == NOTE:
        return
    with pytest.raises(BadNote):
        verify(changed, PUBLIC)


@many
@given(text=st.text())
def test_a_public_key_is_thirty_two_bytes_or_bad_input(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert len(public_bytes(text, "here")) == 32


@many
@given(content=st.binary(max_size=300))
def test_a_private_key_file_is_a_key_or_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + content)
    with pytest.raises(BadInput, match=r"key\.pem"):
        load_private_key(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@many
@given(texts=st.lists(st.one_of(st.text(max_size=80), json_values.map(json.dumps)), max_size=6))
def test_a_chain_of_anything_is_judged_and_never_trips(texts: list[str]) -> None:
    report = Report()
    check_chain([Entry(seq, text, leaf_hash(text)) for seq, text in enumerate(texts)], report, "log")
    assert (len(report.problems) > 0) == (len(texts) > 0)


@many
@given(content=st.binary(max_size=300))
def test_an_export_of_anything_is_judged_and_never_trips(tmp_path: Path, content: bytes) -> None:
    for name in ("entries-0000000000-0000000001.jsonl", "checkpoint-0000000001.note", "other"):
        (tmp_path / name).write_bytes(content)
    assert check(FolderStore(tmp_path), "test", PUBLIC, {}).problems


@many
@given(text=st.one_of(st.text(), json_values.map(json.dumps)))
def test_a_stored_plan_is_a_plan_or_a_failed_check(text: str) -> None:
    with pytest.raises(CheckFailed):
        Plan.parse(text)


@many
@given(kind=st.sampled_from(["email", "phone", "text"]), value=st.text(max_size=60), bits=st.integers(8, 256))
def test_normalising_twice_changes_nothing_more(kind: Normalisation, value: str, bits: int) -> None:
    try:
        once = normalise(kind, value)
    except NotNormalisable:
        return
    assert normalise(kind, once) == once
    assert make_token(b"k" * 32, 1, kind, value, bits) == make_token(b"k" * 32, 1, kind, once, bits)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "Ana@Example.COM ", "ana@example.com"),
        ("email", "ana@bücher.example", "ana@xn--bcher-kva.example"),
        ("email", "\uff41na@example.com", "ana@example.com"),
        ("phone", "0046 (70) 123-45.67", "+46701234567"),
        ("phone", "+46\u00a070\u2011123 45 67", "+46701234567"),
        ("email", "x@κλαρα-σωλις.ευ", "x@xn----ylba7abgd9bnh0e.xn--qxa6a"),
        ("email", "info@straße.de", "info@xn--strae-oqa.de"),
        ("email", "\u202aMailto:ana@Example.com.\u202c", "ana@example.com"),
        ("email", "ana@[192.0.2.1]", "ANA@[192.0.2.1]"),
        ("phone", "+49 (0) 209 22 33 44 55", "+49 209 22 33 44 55"),
        ("phone", "+44 (0)20 7946 0958", "+44 20 7946 0958"),
        ("phone", "+44 020 7946 0958", "+442079460958"),
        ("phone", "(0049) 209 22334455", "+4920922334455"),
        ("phone", "\u2066+49\u2212209\u201422334455\u2069", "+4920922334455"),
        ("phone", "tel:+49-209-22334455;ext=12", "+49 209 22334455 ext. 12"),
        ("text", "Cafe\u0301", "Café"),
    ],
)
def test_what_means_the_same_has_one_token(kind: Normalisation, one: str, other: str) -> None:
    assert make_token(b"k" * 32, 1, kind, one) == make_token(b"k" * 32, 1, kind, other)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "info@straße.de", "info@strasse.de"),
        ("email", "x@κλαρα-σωλις.ευ", "x@κλαρα-σωλισ.ευ"),
        ("phone", "+49 209 22334455", "+49 209 22334455 ext. 12"),
        # Italy's zero belongs to the number.
        ("phone", "+39 06 1234 5678", "+39 6 1234 5678"),
    ],
)
def test_what_means_something_else_has_another_token(kind: Normalisation, one: str, other: str) -> None:
    assert make_token(b"k" * 32, 1, kind, one) != make_token(b"k" * 32, 1, kind, other)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("email", "secret", "local part, @ and a domain"),
        ("email", "secret@exa_mple.com", "IDNA 2008"),
        ("email", "secret@" + "a" * 64 + ".de", "IDNA 2008"),
        ("email", "secret@" + "a" * 1000, "longer than 1000"),
        ("phone", "0209 22334455", "needs its country code"),
        ("phone", "+secret", "needs its country code"),
        ("phone", "+999 1234567", "needs its country code"),
        ("phone", "+49 1", "needs its country code|no phone numbers of that length"),
        ("phone", "+1 20255501234567", "no phone numbers of that length"),
    ],
)
def test_what_can_t_be_searched_for_is_refused_with_the_reason(
    kind: Normalisation, value: str, reason: str
) -> None:
    with pytest.raises(NotNormalisable, match=reason) as refused:
        normalise(kind, value)
    assert "secret" not in str(refused.value)
    assert refused.value.__context__ is None


@many
@given(document=json_values)
def test_values_of_documents_are_found_and_nothing_else_changes(document: object) -> None:
    try:
        text = strict_json.write(strict_json.parse(json.dumps(document)))
    except strict_json.NotStrict:
        return
    parsed, found = parse_document("row", text, ["email", ""])
    assert strict_json.write(parsed) == text
    assert len({(cell.row, cell.field) for cell in found}) == len(found)
