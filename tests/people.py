"""People of a stage for tests: their keys, made anew, and what the stage's file says of them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kilo.fle.audit.notes import load_private_key

PEOPLE = ("ana", "bo", "cy")


def make_keys(folder: Path, names: Sequence[str] = PEOPLE) -> dict[str, str]:
    """Make ``folder`` with each one's private key as ``NAME.pem``; the public halves by name."""
    folder.mkdir(mode=0o700)
    for name in names:
        key = Ed25519PrivateKey.generate()
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return read_keys(folder, names)


def read_keys(folder: Path, names: Sequence[str] = PEOPLE) -> dict[str, str]:
    """The public halves by name of keys that :func:`make_keys` made."""
    keys = {name: load_private_key(folder / f"{name}.pem").public_key() for name in names}
    return {name: b64encode(key.public_bytes_raw()).decode() for name, key in keys.items()}


def field_encryption(public: Mapping[str, str], *, audit: str | None = None) -> str:
    """The setting ``kilo:field_encryption`` with these people, who may rotate keys, and an audit key."""
    people = "".join(f'\n      - {{ name: {name}, public_key: "{key}" }}' for name, key in public.items())
    signed = f'    audit_public_key: "{audit}"\n' if audit else ""
    return f"  kilo:field_encryption:\n    rotation_enabled: true\n{signed}    principals:{people}\n"
