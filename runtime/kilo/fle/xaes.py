"""KC-XAES-256-GCM: AES-256-GCM with a 192-bit nonce and a commitment to the key.

XAES-256-GCM is C2SP's (https://c2sp.org/XAES-256-GCM): a fresh AES-256-GCM key is derived from the
key and the first half of the nonce by CMAC in counter mode (NIST SP 800-108r1), so that nonces can be
random for a practically unlimited number of messages. The commitment is that of Kampanakis, Halevi,
Ebeid and Campagna (https://eprint.iacr.org/2025/758), as published with test vectors by AWS-LC: two
CMACs over ``"XCMT" || nonce || 0x0001 || counter``. Only block cipher calls on whole blocks remain,
which is why ECB appears here: it is the bare AES function, not a mode for data.

Left out: streaming, detached use without the commitment, and every other key size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from hmac import compare_digest
from secrets import token_bytes
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

KEY_BYTES = 32
NONCE_BYTES = 24
COMMITMENT_BYTES = 32
TAG_BYTES = 16
SHARED = 1024
"""Values encrypted one by one that share the first half of their nonces, and so a derived key: with 2**48
messages a key, two of them have one nonce with a probability of 2**-39."""

Seal = Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]
"""Encrypts a plaintext with associated data: (nonce, ciphertext || tag, commitment)."""

_BLOCK_BITS = 128
_HALF_BITS = 96
# Multiplying by these puts a 96-bit half of the nonce into each block at once.
_SPREAD_THREE = (1 << 2 * _BLOCK_BITS) | (1 << _BLOCK_BITS) | 1
_SPREAD_TWO = (1 << _BLOCK_BITS) | 1
_SPREAD_TWO_HIGH = _SPREAD_TWO << 32
_LABELS = int.from_bytes(
    b"\x00\x01X\x00" + bytes(12) + b"\x00\x02X\x00" + bytes(12) + b"XCMT" + bytes(12), "big"
)
_COUNTERS = int.from_bytes(bytes(12) + b"\x00\x01\x00\x01" + bytes(12) + b"\x00\x01\x00\x02", "big")
_REDUCTION = 0x87
_HALVES_KEPT = 256
_WRAP_AROUND = 1 << _HALF_BITS


class CommitmentMismatch(Exception):
    """The commitment was made by another key or for another nonce."""


class KcXaes256Gcm:
    """One key. Threads may share it: each has a block cipher context of its own.

    Neither ``repr`` nor pickling shows the key. Our copy of it is overwritten when the last reference
    goes; copies inside OpenSSL's contexts are cleansed by OpenSSL when those are freed.
    """

    __slots__ = ("_contexts", "_key", "_mask_commitment", "_mask_derive", "_opened")

    def __init__(self, key: bytes | bytearray) -> None:
        self._key = bytearray(key)
        if len(key) != KEY_BYTES:
            msg = f"the key must have {KEY_BYTES} bytes, not {len(key)}"
            raise ValueError(msg)
        self._contexts = threading.local()
        self._opened: dict[bytes, tuple[AESGCM, int]] = {}
        # The CMAC subkey K1 of NIST SP 800-38B, section 6.1; K2 is for partial blocks, which never occur.
        doubled = int.from_bytes(self._context().update(bytes(16)), "big") << 1
        k1 = doubled ^ (_REDUCTION | 1 << _BLOCK_BITS) if doubled >> _BLOCK_BITS else doubled
        self._mask_derive = _LABELS ^ (k1 * _SPREAD_TWO << _BLOCK_BITS)
        self._mask_commitment = _COUNTERS ^ (k1 * _SPREAD_TWO)

    def _context(self) -> CipherContext:
        try:
            return self._contexts.aes
        except AttributeError:
            aes = Cipher(AES256(self._key), ECB()).encryptor()  # noqa: S305 - the bare AES function on whole blocks
            self._contexts.aes = aes
            return aes

    def _half(self, head: bytes) -> tuple[AESGCM, int]:
        """What a nonce's first half decides: the AES-256-GCM key, and what the commitment begins with."""
        spread = int.from_bytes(head, "big") * _SPREAD_THREE
        blocks = self._context().update((spread ^ self._mask_derive).to_bytes(48, "big"))
        return AESGCM(blocks[:32]), int.from_bytes(blocks[32:], "big") * _SPREAD_TWO ^ self._mask_commitment

    def _known_half(self, head: bytes) -> tuple[AESGCM, int]:
        """As :meth:`_half`, from memory where values under the same first half were opened before."""
        known = self._opened.get(head)
        if known is None:
            if len(self._opened) >= _HALVES_KEPT:
                self._opened.clear()
            self._opened[head] = known = self._half(head)
        return known

    def _commitment(self, tail: bytes, chained: int) -> bytes:
        last = int.from_bytes(tail, "big") * _SPREAD_TWO_HIGH ^ chained
        return self._context().update(last.to_bytes(32, "big"))

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """Encrypt under a 24-byte ``nonce`` that must never repeat: (ciphertext || tag, commitment)."""
        gcm, chained = self._half(nonce[:12])
        return gcm.encrypt(nonce[12:], plaintext, aad), self._commitment(nonce[12:], chained)

    def sealer(self) -> Seal:
        """What encrypts up to :data:`SHARED` values one by one under one first half of the nonce.

        Each value has a second half of its own, drawn when it is encrypted: a process that was copied with
        its memory (a fork, a snapshot of a machine) draws others.
        """
        head = os.urandom(12)
        gcm, chained = self._half(head)
        encrypt, context = gcm.encrypt, self._context

        def seal(plaintext: bytes, aad: bytes) -> tuple[bytes, bytes, bytes]:
            tail = os.urandom(12)
            last = int.from_bytes(tail, "big") * _SPREAD_TWO_HIGH ^ chained
            return head + tail, encrypt(tail, plaintext, aad), context().update(last.to_bytes(32, "big"))

        return seal

    def open(self, nonce: bytes, sealed: bytes, commitment: bytes, aad: bytes) -> bytes:
        """Decrypt ``ciphertext || tag``.

        Raises:
            CommitmentMismatch: another key or nonce made it.
            cryptography.exceptions.InvalidTag: it, or its associated data, was altered.
        """
        gcm, chained = self._known_half(nonce[:12])
        tail = nonce[12:]
        if not compare_digest(self._commitment(tail, chained), commitment):
            raise CommitmentMismatch
        return gcm.decrypt(tail, sealed, aad)

    def seal_many(
        self, plaintexts: Sequence[bytes], aads: Sequence[bytes]
    ) -> list[tuple[bytes, bytes, bytes]]:
        """Encrypt a batch: (nonce, ciphertext || tag, commitment) for each plaintext.

        The batch shares one random first half of the nonce, and so one derived key; the second halves
        count up from a random start. Within the batch no nonce can repeat, and between batches both
        96-bit halves would have to meet.
        """
        drawn = token_bytes(NONCE_BYTES)
        head, start = drawn[:12], int.from_bytes(drawn[12:], "big")
        gcm, chained = self._half(head)
        encrypt = gcm.encrypt
        halves = [(start + number) % _WRAP_AROUND for number in range(len(plaintexts))]
        commitments = self._context().update(
            b"".join([(half * _SPREAD_TWO_HIGH ^ chained).to_bytes(32, "big") for half in halves])
        )
        tails = [half.to_bytes(12, "big") for half in halves]
        return [
            (head + tail, encrypt(tail, plaintext, aad), commitments[at : at + 32])
            for tail, plaintext, aad, at in zip(
                tails, plaintexts, aads, range(0, len(commitments), 32), strict=True
            )
        ]

    def open_many(self, parts: Sequence[tuple[bytes, bytes, bytes, bytes]]) -> list[bytes]:
        """Decrypt (nonce, ciphertext || tag, commitment, associated data) of each value.

        Values whose nonces share their first half, as :meth:`seal_many` makes them, share its derivation.
        It raises as :meth:`open` does, without saying which value it was.
        """
        halves = {nonce[:12] for nonce, *_ in parts}
        derived = {head: self._known_half(head) for head in halves}
        last = [
            (int.from_bytes(nonce[12:], "big") * _SPREAD_TWO_HIGH ^ derived[nonce[:12]][1]).to_bytes(
                32, "big"
            )
            for nonce, *_ in parts
        ]
        if not compare_digest(self._context().update(b"".join(last)), b"".join([part[2] for part in parts])):
            raise CommitmentMismatch
        return [derived[nonce[:12]][0].decrypt(nonce[12:], sealed, aad) for nonce, sealed, _, aad in parts]

    def __del__(self) -> None:
        # Only the last reference overwrites the key: doing it while another thread encrypts would encrypt
        # under a key of zeros.
        self._key[:] = bytes(len(self._key))

    def __repr__(self) -> str:
        return "KcXaes256Gcm(…)"

    def __reduce__(self) -> NoReturn:
        msg = "a key can't be pickled"
        raise TypeError(msg)
