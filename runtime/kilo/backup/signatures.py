"""Signatures of manifests: ECDSA over P-256 with SHA-256, by a key that never leaves AWS KMS.

Who writes backups may ask for signatures (kms:Sign) as long as it has its credentials, and no longer: the
private key can't be taken along. Who reads them fetches the public key (kms:GetPublicKey), which forges
nothing, and checks here. What is signed is a line that says what for, so that a signature of one purpose
is none of another, and a digest, since KMS signs messages of 4,096 bytes at most.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html; signatures are DER (RFC 3279, section
2.2.3), public keys SubjectPublicKeyInfo (RFC 5280).
"""

from __future__ import annotations

import base64
import hashlib
import time
from binascii import Error as Base64Error
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import BaseModel, ConfigDict

from kilo.backup.kms import KmsKey
from kilo.contract import BackupOutputs
from kilo.errors import CheckFailed, KiloError

_PLACE = "backups.signing_key"
_ALGORITHM = "ECDSA_SHA_256"
_ASK_AGAIN_SECONDS = 60.0
"""A lost region costs a minute of attempts; a list of manifests must not cost one for each."""


class Signature(BaseModel):
    """Which key signed, as KMS names it, and the signature in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal["ECDSA_SHA_256"] = _ALGORITHM
    key: str
    value: str


def statement(purpose: str, content: bytes) -> bytes:
    """What is signed of ``content``: two lines, the purpose and the SHA-256 in hexadecimal."""
    return f"kilo backup {purpose}\n{hashlib.sha256(content).hexdigest()}\n".encode()


class Verifier:
    """Verifies by the public key of the contract's signing key, fetched once, or else its replica's."""

    def __init__(self, outputs: BackupOutputs) -> None:
        self._key = KmsKey(_PLACE, (outputs.signing_key, outputs.signing_key_replica))
        self._fetched: EllipticCurvePublicKey | None = None
        self._failed: tuple[float, KiloError] | None = None

    def verify(self, signature: Signature | None, purpose: str, content: bytes, place: str) -> None:
        """Verify that ``content``, which lies at ``place``, was signed for ``purpose``.

        Raises:
            CheckFailed: it is not signed, by another key, or was altered; or KMS denies the public key.
            Unreachable: KMS does not answer.
        """
        if signature is None:
            msg = f"{place}: it is not signed"
            raise CheckFailed(msg)
        if signature.key != self._key.arn:
            msg = f"{place}: signed by {signature.key} and not by the stage's signing key {self._key.arn}"
            raise CheckFailed(msg)
        try:
            value = base64.b64decode(signature.value, validate=True)
            self._public_key().verify(value, statement(purpose, content), ECDSA(SHA256()))
        except (Base64Error, InvalidSignature, ValueError):
            msg = f"{place}: its signature is wrong: it was altered, or not signed by {self._key.arn}"
            raise CheckFailed(msg) from None

    def _public_key(self) -> EllipticCurvePublicKey:
        if self._fetched is None:
            if self._failed and time.monotonic() < self._failed[0]:
                raise self._failed[1]
            try:
                answer = self._key.call("get_public_key")
            except KiloError as error:
                self._failed = (time.monotonic() + _ASK_AGAIN_SECONDS, error)
                raise
            found = load_der_public_key(answer["PublicKey"])
            if not isinstance(found, EllipticCurvePublicKey):
                msg = f"{_PLACE}: {self._key.arn} is no key of an elliptic curve; it must be ECC_NIST_P256"
                raise CheckFailed(msg)
            self._fetched = found
        return self._fetched


class Signer:
    """Signs by the contract's signing key, or by its replica while the key's own region is away."""

    def __init__(self, outputs: BackupOutputs) -> None:
        self._key = KmsKey(_PLACE, (outputs.signing_key, outputs.signing_key_replica))

    def sign(self, purpose: str, content: bytes) -> Signature:
        """Sign ``content`` for ``purpose``.

        Raises:
            CheckFailed: KMS denied it, or the key is disabled or gone.
            Unreachable: KMS does not answer.
        """
        answer = self._key.call(
            "sign", Message=statement(purpose, content), MessageType="RAW", SigningAlgorithm=_ALGORITHM
        )
        return Signature(key=self._key.arn, value=base64.b64encode(answer["Signature"]).decode())
