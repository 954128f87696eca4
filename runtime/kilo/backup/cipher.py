"""The encryption of a backup's objects: AES-256-GCM in segments, so that it streams.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and
its Nonce-Reuse Misuse-Resistance, 2015): segment ``i`` is sealed with the nonce ``i (11 bytes, big
endian) | last (1 byte)``, so that segments can't be reordered, dropped or cut off unnoticed. Every
object has a key of its own, derived from the backup's data key by HKDF-SHA256 (RFC 5869) with the
object's name, so nonces need no randomness. Object: magic (8 bytes), then segments of 1 MiB of
plaintext and 16 bytes of tag each; the last one is shorter or empty. The magic is authenticated
with every segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kilo.errors import CheckFailed

ALGORITHM = "AES-256-GCM-STREAM-1MiB"
MAGIC = b"KILOBAK1"
SEGMENT_BYTES = 1024 * 1024
_TAG_BYTES = 16


def derive(data_key: bytes, purpose: str) -> bytes:
    """Derive a 32-byte key for one purpose from a backup's data key."""
    return HKDF(SHA256(), 32, salt=None, info=f"kilo backup {purpose}".encode()).derive(data_key)


def encrypt(data_key: bytes, name: str, plaintext: Iterable[bytes]) -> Iterator[bytes]:
    """Encrypt the object ``name``; yields pieces of at most a segment."""
    cipher = AESGCM(derive(data_key, f"object {name}"))
    yield MAGIC
    index = 0
    held: bytes | None = None
    for segment in _segments(plaintext, SEGMENT_BYTES):
        if held is not None:
            yield cipher.encrypt(_nonce(index, last=False), held, MAGIC)
            index += 1
        held = segment
    yield cipher.encrypt(_nonce(index, last=True), held or b"", MAGIC)


def decrypt(data_key: bytes, name: str, ciphertext: Iterable[bytes]) -> Iterator[bytes]:
    """Decrypt the object ``name``; a piece is only yielded once it is known to be genuine.

    Raises:
        CheckFailed: the object was changed, cut off, or is not that object of that backup.
    """
    cipher = AESGCM(derive(data_key, f"object {name}"))
    pieces = _segments(_without_magic(name, ciphertext), SEGMENT_BYTES + _TAG_BYTES)
    index = 0
    held = next(pieces, b"")
    try:
        for segment in pieces:
            yield cipher.decrypt(_nonce(index, last=False), held, MAGIC)
            index += 1
            held = segment
        yield cipher.decrypt(_nonce(index, last=True), held, MAGIC)
    except InvalidTag as error:
        msg = f"{name}: segment {index} is not genuine: the object was changed or cut off"
        raise CheckFailed(msg) from error


def _nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _without_magic(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    start = b""
    for piece in pieces:
        if len(start) >= len(MAGIC):
            yield piece
            continue
        start += piece
        if len(start) >= len(MAGIC):
            if not start.startswith(MAGIC):
                msg = f"{name}: does not begin as a backup's object"
                raise CheckFailed(msg)
            yield start[len(MAGIC) :]


def _segments(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut into segments of exactly ``size`` bytes; only the last may be shorter."""
    waiting: list[bytes | memoryview] = []
    length = 0
    for piece in pieces:
        if not waiting and len(piece) == size:
            yield piece  # As it mostly comes, and not copied.
            continue
        rest = memoryview(piece)
        while length + len(rest) >= size:
            waiting.append(rest[: size - length])
            rest = rest[size - length :]
            yield b"".join(waiting)
            waiting, length = [], 0
        if rest:
            waiting.append(rest)
            length += len(rest)
    if waiting:
        yield b"".join(waiting)
