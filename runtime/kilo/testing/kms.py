"""A key management service inside the process of a test.

It seals with AES-256-GCM under one secret a key and authenticates key and context, so that a wrap opens under
nothing else, as with a KMS. What it does not have: policies, states, regions, limits, latency.
"""

from __future__ import annotations

import contextlib
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kilo.fle.kms import Context, KeyState, KmsKeyUnusable

_NONCE_BYTES = 12


class LocalKms:
    """Implements :class:`kilo.fle.kms.Kms`; keys are made when they are first named."""

    def __init__(self) -> None:
        self._keys: dict[str, AESGCM] = {}
        self._destroyed: set[str] = set()

    def destroy(self, key: str) -> None:
        """Lose ``key`` for good, to see what the service does then."""
        self._keys.pop(key, None)
        self._destroyed.add(key)

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        """See :class:`kilo.fle.kms.Kms`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._of(key).encrypt(nonce, bytes(secret), _bound(key, context))

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        """See :class:`kilo.fle.kms.Kms`."""
        cipher, opened = self._of(key), None
        with contextlib.suppress(InvalidTag):
            opened = cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _bound(key, context))
        if opened is None:
            raise KmsKeyUnusable(detail="the wrap is of another key or context")
        return bytearray(opened)

    def state(self, key: str) -> KeyState:
        """See :class:`kilo.fle.kms.Kms`."""
        return "gone" if key in self._destroyed else "enabled"

    def _of(self, key: str) -> AESGCM:
        if key in self._destroyed:
            raise KmsKeyUnusable(detail="destroyed")
        if key not in self._keys:
            self._keys[key] = AESGCM(AESGCM.generate_key(256))
        return self._keys[key]


def _bound(key: str, context: Context) -> bytes:
    return json.dumps([key, sorted(context.items())]).encode()
