"""Nothing changed, cut off, moved or taken from another object decrypts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilo.backup.cipher import MAGIC, SEGMENT_BYTES, decrypt, encrypt
from kilo.errors import CheckFailed

KEY = bytes(range(32))
SEALED = SEGMENT_BYTES + 16


def sealed(plaintext: bytes, name: str = "a") -> bytes:
    return b"".join(encrypt(KEY, name, [plaintext]))


def opened(ciphertext: bytes | Iterable[bytes], name: str = "a", key: bytes = KEY) -> bytes:
    return b"".join(decrypt(key, name, [ciphertext] if isinstance(ciphertext, bytes) else ciphertext))


@pytest.mark.parametrize(
    "size", [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES]
)
def test_round_trip(size: int) -> None:
    plaintext = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    plaintext = plaintext[:size]
    assert opened(sealed(plaintext)) == plaintext


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20), st.integers(0, 2**31))
def test_pieces_do_not_matter_and_any_changed_byte_does(
    plaintext: bytes, cuts: list[int], place: int
) -> None:
    whole = sealed(plaintext)
    pieces, rest = [], whole
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert opened([*pieces, rest]) == plaintext
    position = place % len(whole)
    changed = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    with pytest.raises(CheckFailed):
        opened(changed)


def three_segments() -> tuple[bytes, list[bytes]]:
    whole = sealed(b"x" * (2 * SEGMENT_BYTES + 5))
    body = whole[len(MAGIC) :]
    return whole, [body[:SEALED], body[SEALED : 2 * SEALED], body[2 * SEALED :]]


def test_segments_can_not_be_dropped_swapped_repeated_or_cut_off() -> None:
    _, [first, second, last] = three_segments()
    for parts in (
        [first, second],
        [second, first, last],
        [first, last],
        [first, first, second, last],
        [first],
        [],
    ):
        with pytest.raises(CheckFailed):
            opened(MAGIC + b"".join(parts))


def test_an_object_is_bound_to_its_name_and_key() -> None:
    whole = sealed(b"secret")
    for name, key in (("b", KEY), ("a", bytes(32))):
        with pytest.raises(CheckFailed):
            opened(whole, name, key)


def test_every_object_has_a_key_of_its_own() -> None:
    assert sealed(b"same", "a") != sealed(b"same", "b")


def test_what_is_not_genuine_is_never_yielded() -> None:
    whole, _ = three_segments()
    broken = whole[:-1] + bytes([whole[-1] ^ 1])
    seen = bytearray()
    pieces = decrypt(KEY, "a", [broken])
    seen += next(pieces) + next(pieces)
    with pytest.raises(CheckFailed):
        next(pieces)
    assert bytes(seen) == b"x" * (2 * SEGMENT_BYTES)
