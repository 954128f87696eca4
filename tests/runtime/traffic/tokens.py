"""JSON Web Tokens, right and wrong, signed by hand: libraries refuse to make the wrong ones."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://id.example.com/", "kilo"


class Issuer:
    """Who signs tokens (ES256, RFC 7518)."""

    def __init__(self, key_id: str = "k1") -> None:
        self.key_id = key_id
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> str:
        """The public key set."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_text(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y}
        return json.dumps({"keys": [key]})

    def token(self, tenant: object = None, *, payload: bytes | None = None, **claims: Any) -> str:
        """A token of ``tenant`` for ten minutes; ``claims`` replace others, None leaves one out."""
        given = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "tenant": tenant, **claims}
        said = {name: value for name, value in given.items() if value is not None}
        header = {"alg": "ES256", "typ": "JWT", "kid": self.key_id}
        signed = f"{_text(json.dumps(header).encode())}.{_text(payload or json.dumps(said).encode())}"
        signature = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def unsigned(self, tenant: str | None = None, **claims: Any) -> str:
        """What an attacker writes who has no key: algorithm none."""
        _, payload, signature = self.token(tenant, **claims).split(".")
        return f"{_text(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{payload}.{signature}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
