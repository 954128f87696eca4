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

import threading
from collections.abc import Sequence
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
_WRAP_AROUND = 1 << _HALF_BITS


class CommitmentMismatch(Exception):
    """The commitment was made by another key or for another nonce."""


class KcXaes256Gcm:
    """One key. Threads may share it: each has a block cipher context of its own.

    Neither ``repr`` nor pickling shows the key. Our copy of it is overwritten when the last reference
    goes; copies inside OpenSSL's contexts are cleansed by OpenSSL when those are freed.
    """

    __slots__ = ("_contexts", "_key", "_mask_commitment", "_mask_derive")

    def __init__(self, key: bytes | bytearray) -> None:
        self._key = bytearray(key)
        if len(key) != KEY_BYTES:
            msg = f"the key must have {KEY_BYTES} bytes, not {len(key)}"
            raise ValueError(msg)
        self._contexts = threading.local()
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

    def _derive(self, nonce: bytes) -> tuple[bytes, bytes]:
        """Derive the AES-256-GCM key and the commitment that belong to ``nonce``."""
        aes = self._context()
        first = int.from_bytes(nonce[:12], "big")
        blocks = aes.update((first * _SPREAD_THREE ^ self._mask_derive).to_bytes(48, "big"))
        chained = int.from_bytes(blocks[32:], "big") * _SPREAD_TWO ^ self._mask_commitment
        last = int.from_bytes(nonce[12:], "big") * _SPREAD_TWO_HIGH ^ chained
        return blocks[:32], aes.update(last.to_bytes(32, "big"))

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """Encrypt under a 24-byte ``nonce`` that must never repeat: (ciphertext || tag, commitment)."""
        subkey, commitment = self._derive(nonce)
        return AESGCM(subkey).encrypt(nonce[12:], plaintext, aad), commitment

    def open(self, nonce: bytes, sealed: bytes, commitment: bytes, aad: bytes) -> bytes:
        """Decrypt ``ciphertext || tag``.

        Raises:
            CommitmentMismatch: another key or nonce made it.
            cryptography.exceptions.InvalidTag: it, or its associated data, was altered.
        """
        subkey, expected = self._derive(nonce)
        if not compare_digest(expected, commitment):
            raise CommitmentMismatch
        return AESGCM(subkey).decrypt(nonce[12:], sealed, aad)

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
        aes = self._context()
        spread = int.from_bytes(head, "big") * _SPREAD_THREE
        blocks = aes.update((spread ^ self._mask_derive).to_bytes(48, "big"))
        encrypt = AESGCM(blocks[:32]).encrypt
        chained = int.from_bytes(blocks[32:], "big") * _SPREAD_TWO ^ self._mask_commitment
        halves = [(start + number) % _WRAP_AROUND for number in range(len(plaintexts))]
        commitments = aes.update(
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
        aes = self._context()
        derived: dict[bytes, tuple[AESGCM, int]] = {}
        last: list[bytes] = []
        for nonce, _, _, _ in parts:
            state = derived.get(nonce[:12])
            if state is None:
                first = int.from_bytes(nonce[:12], "big")
                blocks = aes.update((first * _SPREAD_THREE ^ self._mask_derive).to_bytes(48, "big"))
                chained = int.from_bytes(blocks[32:], "big") * _SPREAD_TWO ^ self._mask_commitment
                derived[nonce[:12]] = state = (AESGCM(blocks[:32]), chained)
            half = int.from_bytes(nonce[12:], "big")
            last.append((half * _SPREAD_TWO_HIGH ^ state[1]).to_bytes(32, "big"))
        if not compare_digest(aes.update(b"".join(last)), b"".join([part[2] for part in parts])):
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
