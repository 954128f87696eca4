"""Somebody with a key, who signs images as cosign 2 and 3 do."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kilo.registry.signatures import BUNDLE, SIMPLE_SIGNING, SignaturePolicy
from kilo.registry.signers import Keys, Signers
from tests.runtime.registry.images import MANIFEST, Shelf

CONFIG = "application/vnd.oci.image.config.v1+json"
SIGNED = "https://sigstore.dev/cosign/sign/v1"


class Signer:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.signers = Signers(Keys([self._key.public_key()]))
        self.policy = SignaturePolicy(self.signers)

    def write_key(self, directory: Path) -> Path:
        """The public key in a file of its own."""
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        file = directory / f"{id(self)}.pub"
        file.write_bytes(pem)
        return file

    def bundle(self, digest: str, kind: str = SIGNED, predicate: object = None) -> bytes:
        """A Sigstore bundle with a DSSE envelope."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": kind,
            "predicate": predicate,
        }
        payload, media_type = json.dumps(statement).encode(), b"application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(media_type), media_type, len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": media_type.decode(),
            "signatures": [{"sig": self._sign(signed)}],
        }
        return json.dumps({"mediaType": f"{BUNDLE}.v0.3+json", "dsseEnvelope": envelope}).encode()

    def sign(
        self, shelf: Shelf, image: dict[str, Any], kind: str = SIGNED, predicate: object = None
    ) -> dict[str, Any]:
        """As cosign 3: a bundle, attached as a referrer."""
        content = self.bundle(image["digest"], kind, predicate)
        return shelf.artifact(image, f"{BUNDLE}.v0.3+json", content)

    def sign_by_tag(self, shelf: Shelf, image: dict[str, Any]) -> str:
        """As cosign 2: under a tag, with an image's configuration."""
        critical = {"image": {"docker-manifest-digest": image["digest"]}, "type": "cosign", "identity": {}}
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        layer = {**shelf.blob(payload), "mediaType": SIMPLE_SIGNING}
        layer["annotations"] = {"dev.cosignproject.cosign/signature": self._sign(payload)}
        config = {**shelf.blob(b'{"rootfs": {"type": "layers"}}'), "mediaType": CONFIG}
        tag = image["digest"].replace(":", "-") + ".sig"
        shelf.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}, tag)
        return tag

    def _sign(self, content: bytes) -> str:
        return base64.b64encode(self._key.sign(content, ec.ECDSA(SHA256()))).decode()
