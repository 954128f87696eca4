"""Signed checkpoints: C2SP tlog-checkpoint in a C2SP signed note, with Ed25519.

https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note. Any tool that reads transparency
log checkpoints can verify ours. Left out: witnesses' cosignatures; a witness can add its line later,
and ours still verifies.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kilo.errors import BadInput

_ED25519 = b"\x01"
_DASH = "\u2014"
_SIZE = re.compile("0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log at one size: its name, number of entries and Merkle root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


class BadNote(ValueError):
    """The note is malformed, or no signature of the expected key verifies."""


def public_bytes(text: str, place: str) -> bytes:
    """Decode a base64 Ed25519 public key; ``place`` names where it was found in an error."""
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raw = b""
    if len(raw) != 32:
        msg = f"{place}: not an Ed25519 public key; give the base64 of its 32 bytes"
        raise BadInput(msg)
    return raw


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key in PEM (PKCS #8), as ``openssl genpkey -algorithm ed25519`` writes it."""
    try:
        return private_key(path.read_bytes(), str(path))
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror})"
        raise BadInput(msg) from error


def private_key(pem: bytes, place: str) -> Ed25519PrivateKey:
    """An Ed25519 private key of PEM text; ``place`` names where it was found in an error."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        msg = (
            f"{place}: not an Ed25519 private key in PEM; make one with `openssl genpkey -algorithm ed25519`"
        )
        raise BadInput(msg)
    return key


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The checkpoint as a signed note; the signer's name is the log's origin."""
    public = key.public_key().public_bytes_raw()
    signature = _key_id(checkpoint.origin, public) + key.sign(checkpoint.text().encode())
    return f"{checkpoint.text()}\n{_DASH} {checkpoint.origin} {b64encode(signature).decode()}\n"


def parse(note: str) -> Checkpoint:
    """Read a signed note without verifying it; raises :class:`BadNote` when it is no checkpoint."""
    text, separator, _ = note.rpartition("\n\n")
    lines = text.split("\n") if separator else []
    if len(lines) != 3 or not lines[0] or not _SIZE.fullmatch(lines[1]):
        msg = "it is not a checkpoint of three lines with a blank line and signatures"
        raise BadNote(msg)
    try:
        return Checkpoint(lines[0], int(lines[1]), b64decode(lines[2], validate=True))
    except (Base64Error, ValueError):
        pass
    msg = "its root hash is not base64"
    raise BadNote(msg)


def verify(note: str, public: bytes) -> Checkpoint:
    """Read a signed note and verify its signature by ``public``, an Ed25519 public key.

    Raises:
        BadNote: the reason in plain words.
    """
    checkpoint = parse(note)
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.split("\n"):
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH or parts[1] != checkpoint.origin:
            continue
        try:
            raw = b64decode(parts[2], validate=True)
        except (Base64Error, ValueError):
            continue
        if raw[:4] != _key_id(checkpoint.origin, public):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], f"{text}\n".encode())
        except InvalidSignature:
            msg = "its signature is wrong: the checkpoint was altered"
            raise BadNote(msg) from None
        return checkpoint
    msg = "it is not signed by the audit key"
    raise BadNote(msg)
