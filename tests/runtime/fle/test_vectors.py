"""Published vectors, the sprint's own code in Node, and our specification's vectors."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kilo.fle import formats
from kilo.fle.commands.values import decrypt_v1, encrypt_v1
from kilo.fle.datakey import XaesKey, derive_index_key
from kilo.fle.deterministic import make_token, make_token_before, token_v1
from kilo.fle.keytable import KeyRow
from kilo.fle.normalisation import normalise_before
from kilo.fle.xaes import SHARED, CommitmentMismatch, KcXaes256Gcm

VECTORS = Path(__file__).parent / "vectors"
V1: dict[str, Any] = json.loads((VECTORS / "v1.json").read_text())
V2: dict[str, Any] = json.loads((VECTORS / "v2.json").read_text())
PUBLISHED: dict[str, Any] = json.loads((VECTORS / "published.json").read_text())
unhex = bytes.fromhex


def source(vector: dict[str, Any]) -> str:
    return vector.get("source", "")


@pytest.mark.parametrize("vector", PUBLISHED["gcm"], ids=source)
def test_gcm_of_the_specification(vector: dict[str, Any]) -> None:
    gcm = AESGCM(unhex(vector["key"]))
    plaintext, aad = unhex(vector["plaintext"]), unhex(vector["aad"])
    assert gcm.encrypt(unhex(vector["nonce"]), plaintext, aad).hex() == vector["sealed"]


@pytest.mark.parametrize("vector", PUBLISHED["kc_xaes"], ids=source)
def test_kc_xaes_of_c2sp_and_aws_lc(vector: dict[str, Any]) -> None:
    cipher = KcXaes256Gcm(unhex(vector["key"]))
    nonce, plaintext, aad = unhex(vector["nonce"]), unhex(vector["plaintext"]), unhex(vector["aad"])
    sealed, commitment = cipher.seal(nonce, plaintext, aad)
    assert (sealed.hex(), commitment.hex()) == (vector["sealed"], vector["commitment"])
    assert cipher.open(nonce, sealed, commitment, aad) == plaintext
    with pytest.raises(InvalidTag):
        cipher.open(nonce, sealed, commitment, aad + b"x")
    with pytest.raises(CommitmentMismatch):
        KcXaes256Gcm(b"\x09" * 32).open(nonce, sealed, commitment, aad)


def test_xaes_accumulated_over_ten_thousand_messages() -> None:
    """C2SP XAES-256-GCM, "Accumulated randomized tests"."""
    stream = hashlib.shake_128(b"").digest(10_000 * (32 + 24 + 2 * 256))
    result = hashlib.shake_128()
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return stream[at - count : at]

    for _ in range(10_000):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        result.update(KcXaes256Gcm(key).seal(nonce, plaintext, aad)[0])
    assert result.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@pytest.mark.parametrize("vector", PUBLISHED["siv"], ids=source)
def test_siv_of_rfc_5297(vector: dict[str, Any]) -> None:
    aads = [unhex(each) for each in vector["aads"]]
    assert AESSIV(unhex(vector["key"])).encrypt(unhex(vector["plaintext"]), aads).hex() == vector["sealed"]


@pytest.mark.parametrize("vector", PUBLISHED["hkdf"], ids=source)
def test_hkdf_of_rfc_5869(vector: dict[str, Any]) -> None:
    okm = unhex(vector["okm"])
    hkdf = HKDF(SHA256(), len(okm), unhex(vector["salt"]), unhex(vector["info"]))
    assert hkdf.derive(unhex(vector["ikm"])) == okm


@pytest.mark.parametrize("vector", V1["encrypt"], ids=lambda v: f"{len(v['value']) // 2} bytes")
def test_v1_reads_and_writes_what_node_does(vector: dict[str, Any]) -> None:
    key, value = unhex(vector["key"]), unhex(vector["value"])
    assert decrypt_v1(key, vector["blob"]) == value
    with mock.patch("os.urandom", return_value=unhex(vector["iv"])):
        assert encrypt_v1(key, value) == vector["blob"]


@pytest.mark.parametrize("vector", V1["token"], ids=lambda v: v["token"][:6])
def test_v1_tokens_are_node_s(vector: dict[str, Any]) -> None:
    assert token_v1(unhex(vector["key"]), unhex(vector["value"]).decode()) == vector["token"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_sprint_s_code_and_ours_read_each_other() -> None:
    key = os.urandom(32)
    values = [os.urandom(size) for size in (0, 1, 15, 16, 17, 64, 1024)]
    asked = {
        "encrypt": [{"key": key.hex(), "value": value.hex()} for value in values],
        "decrypt": [{"key": key.hex(), "blob": encrypt_v1(key, value)} for value in values],
    }
    answer = json.loads(
        subprocess.run(
            ["node", VECTORS / "sprint.mjs"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert [decrypt_v1(key, blob) for blob in answer["encrypt"]] == values
    assert answer["decrypt"] == [value.hex() for value in values]


def key_of(vector: dict[str, Any]) -> XaesKey:
    row = KeyRow(vector["key_id"], vector["tenant"], "field-data", 2, 1, "active", ())
    return XaesKey(row, bytearray.fromhex(vector["key"]))


def test_values_one_by_one_share_a_derived_key_and_never_a_nonce() -> None:
    key = key_of(V2["kc_xaes_256_gcm"][0])
    key.granted = 1 << 20
    write = key.writer(b"place", lambda _: None, lambda _, __: None)
    nonces = [formats.to_bytes(write(b"x", row))[6:30] for row in range(2 * SHARED + 1)]
    assert len(set(nonces)) == len(nonces)
    assert len({nonce[12:] for nonce in nonces}) == len(nonces)
    # A half for each block of tickets, whoever took them.
    assert [nonces[at][:12] == nonces[0][:12] for at in (1, SHARED - 1, SHARED)] == [True, True, False]
    assert len({nonce[:12] for nonce in nonces}) == 3


@pytest.mark.parametrize("vector", V2["kc_xaes_256_gcm"], ids=lambda v: f"key {v['key_id']}")
def test_v2_of_our_specification(vector: dict[str, Any]) -> None:
    key, plaintext = key_of(vector), unhex(vector["plaintext"])
    place = formats.associated_data(key.header, vector["tenant"], vector["table"], vector["field"])
    assert (place + formats.row_data(vector["row"])).hex() == vector["associated_data"]
    nonce = unhex(vector["nonce"])
    with mock.patch("os.urandom", side_effect=[nonce[:12], nonce[12:]]):
        write = key.writer(place, lambda _: None, lambda _, __: None)
        assert write(plaintext, vector["row"]) == vector["value"]
    assert key.open(formats.to_bytes(vector["value"]), place + formats.row_data(vector["row"])) == plaintext


@pytest.mark.parametrize("vector", V2["aes_siv"], ids=lambda v: f"key {v['key_id']}")
def test_deterministic_v2_of_our_specification(vector: dict[str, Any]) -> None:
    key = key_of(vector)
    place = formats.associated_data(key.siv_header, vector["tenant"], vector["table"], vector["field"])
    raw = formats.to_bytes(vector["value"])
    assert key.seal_deterministic(unhex(vector["plaintext"]), place) == raw
    assert key.open_deterministic(raw, place) == unhex(vector["plaintext"])


@pytest.mark.parametrize("vector", V2["token"], ids=lambda v: v["token"][:8])
def test_tokens_of_our_specification(vector: dict[str, Any]) -> None:
    key = derive_index_key(unhex(vector["index_root"]), vector["tenant"], vector["table"], vector["field"])
    assert key.hex() == vector["index_key"]
    kind, version, bits = vector["normalisation"], vector["version"], vector["bits"]
    assert normalise_before(kind, vector["value"]) == vector["normalised"]
    assert make_token_before(key, version, kind, vector["value"], bits) == vector["token"]
    # The second version: the same construction over another name. What both normalise alike is used here.
    if kind == "text":
        assert make_token(key, version, kind, vector["value"], bits) == vector["token"]
        return
    name = f"{kind}-2".encode()
    told = len(name).to_bytes(4, "big") + name + b"\x00\x00\x00\x02" + bits.to_bytes(2, "big")
    mac = hmac.digest(key, told + vector["normalised"].encode(), "sha256")[: bits // 8]
    if bits % 8 == 0:
        expected = f"3.{version}." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        assert make_token(key, version, kind, vector["value"], bits) == expected


WYCHEPROOF = os.environ.get("KILO_WYCHEPROOF", "")
needs_wycheproof = pytest.mark.skipif(not WYCHEPROOF, reason="KILO_WYCHEPROOF names no folder")


def wycheproof(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = sorted(Path(WYCHEPROOF).rglob(name))
    assert found, f"{WYCHEPROOF}: has no {name}"
    groups = json.loads(found[-1].read_text())["testGroups"]
    return [(group, test) for group in groups for test in group["tests"]]


@needs_wycheproof
def test_wycheproof_aes_gcm() -> None:
    tried = 0
    for group, test in wycheproof("aes_gcm_test.json"):
        # A shorter tag and IVs outside of the library's range are no configuration of ours.
        if group["tagSize"] != 128 or not 64 <= group["ivSize"] <= 1024:
            continue
        tried += 1
        gcm, sealed = AESGCM(unhex(test["key"])), unhex(test["ct"]) + unhex(test["tag"])
        try:
            opened: bytes | None = gcm.decrypt(unhex(test["iv"]), sealed, unhex(test["aad"]))
        except InvalidTag:
            opened = None
        assert (opened == unhex(test["msg"])) == (test["result"] != "invalid"), test["tcId"]
    assert tried > 100


@needs_wycheproof
def test_wycheproof_hmac() -> None:
    for group, test in wycheproof("hmac_sha256_test.json"):
        mac = HMAC(unhex(test["key"]), SHA256())
        mac.update(unhex(test["msg"]))
        same = mac.finalize()[: group["tagSize"] // 8].hex() == test["tag"]
        assert same == (test["result"] == "valid"), test["tcId"]


@needs_wycheproof
def test_wycheproof_hkdf() -> None:
    for _, test in wycheproof("hkdf_sha256_test.json"):
        try:
            okm = HKDF(SHA256(), test["size"], unhex(test["salt"]), unhex(test["info"])).derive(
                unhex(test["ikm"])
            )
        except ValueError:
            okm = None
        assert (okm is not None and okm.hex() == test["okm"]) == (test["result"] == "valid"), test["tcId"]


@needs_wycheproof
def test_wycheproof_aes_siv() -> None:
    for _, test in wycheproof("aes_siv_cmac_test.json"):
        try:
            opened: bytes | None = AESSIV(unhex(test["key"])).decrypt(unhex(test["ct"]), [unhex(test["aad"])])
        except (InvalidTag, ValueError):
            opened = None
        assert (opened == unhex(test["msg"])) == (test["result"] == "valid"), test["tcId"]
