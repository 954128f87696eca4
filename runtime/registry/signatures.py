"""Signatures of images, checked against public keys.

Two forms are understood: cosign's simple signing under the ``.sig`` tag
(https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md), and Sigstore bundles with a
DSSE envelope, which cosign 3 attaches as referrers
(https://github.com/sigstore/protobuf-specs, https://github.com/secure-systems-lab/dsse). A signature
counts when it was made with one of the keys over a statement that names the very digest.

Left out: keyless identities. They need Sigstore's transparency log and trust root, which cosign
itself checks; a keyless signature is reported as not verified here, never as good.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from runtime.errors import BadInput, CheckFailed
from runtime.registry.blobs import BlobReader
from runtime.registry.errors import NotFound, Untrustworthy
from runtime.registry.graph import Graph, RepositoryView
from runtime.registry.manifest import Descriptor, Manifest

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURES = frozenset({SIMPLE_SIGNING, "https://sigstore.dev/cosign/sign/v1"})
"""Statements that say no more than that somebody signed the image."""

BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_LIMIT_BYTES = 16 * 1024 * 1024

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody said of a digest, and by which key, if by one that was given."""

    subject: str
    predicate_type: str
    predicate: object
    identity: str | None


class Keys:
    """Public keys whose signatures are accepted."""

    def __init__(self, files: list[Path]) -> None:
        self._keys: dict[str, PublicKey] = {}
        for file in files:
            try:
                key = load_pem_public_key(file.read_bytes())
            except (OSError, ValueError) as error:
                msg = f"{file}: no public key in PEM form ({type(error).__name__})"
                raise BadInput(msg) from error
            if not isinstance(key, PublicKey):
                msg = f"{file}: keys of the type {type(key).__name__} sign no images"
                raise BadInput(msg)
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self._keys[f"sha256:{hashlib.sha256(der).hexdigest()}"] = key

    def identify(self, signature: bytes, content: bytes) -> str | None:
        """The identity of the key that made ``signature`` over ``content``; None when none of these did."""
        for identity, key in self._keys.items():
            try:
                if isinstance(key, ec.EllipticCurvePublicKey):
                    key.verify(signature, content, ec.ECDSA(SHA256()))
                elif isinstance(key, rsa.RSAPublicKey):
                    key.verify(signature, content, padding.PKCS1v15(), SHA256())
                else:
                    key.verify(signature, content)
            except InvalidSignature:
                continue
            return identity
        return None


class SignaturePolicy:
    """Requires every image to be signed with one of the keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def check(self, view: RepositoryView, graph: Graph) -> None:
        """Require a good signature of the graph's root.

        Raises:
            CheckFailed: there is none.
        """
        if not any(
            statement.identity and statement.subject == graph.root and statement.predicate_type in SIGNATURES
            for statement in read_statements(view, graph, self._keys)
        ):
            msg = f"{view.repository.place(graph.root)}: no signature by a required key; quarantined"
            raise CheckFailed(msg)


def read_statements(view: RepositoryView, graph: Graph, keys: Keys) -> Iterator[Statement]:
    """Everything that signatures and attestations of the graph's manifests say, and who said it."""
    for node in graph.nodes.values():
        for tag in node.tags:
            manifest = view.read(graph.cosign_tags[tag])
            yield from _of_manifest(view, manifest, node.digest, keys)
        for referrer in node.referrers:
            yield from _of_manifest(view, view.read(referrer.digest), node.digest, keys)


def _of_manifest(view: RepositoryView, manifest: Manifest, subject: str, keys: Keys) -> Iterator[Statement]:
    for layer in cast("list[dict[str, Any]]", manifest.document.get("layers") or []):
        media_type = str(layer.get("mediaType", ""))
        if media_type != SIMPLE_SIGNING and not media_type.startswith(BUNDLE) and "dsse" not in media_type:
            continue
        content = read_blob(view, Descriptor.parse(layer, manifest.place))
        try:
            if media_type == SIMPLE_SIGNING:
                yield _simple(content, cast("dict[str, str]", layer.get("annotations") or {}), keys)
            else:
                document = json.loads(content)
                yield from _envelope(document.get("dsseEnvelope", document), keys)
        except (ValueError, LookupError, TypeError, binascii.Error) as error:
            msg = f"{manifest.place}: a signature of {subject} can't be read: {type(error).__name__}"
            raise Untrustworthy(msg) from error


def _simple(content: bytes, annotations: dict[str, str], keys: Keys) -> Statement:
    critical = json.loads(content)["critical"]
    signature = base64.b64decode(annotations[_SIGNATURE_ANNOTATION])
    digest = str(critical["image"]["docker-manifest-digest"])
    return Statement(digest, SIMPLE_SIGNING, None, keys.identify(signature, content))


def _envelope(envelope: dict[str, Any], keys: Keys) -> Iterator[Statement]:
    payload = base64.b64decode(envelope["payload"])
    kind = str(envelope["payloadType"]).encode()
    # DSSE's pre-authentication encoding.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signatures = [base64.b64decode(entry["sig"]) for entry in envelope["signatures"]]
    identity = next((found for found in (keys.identify(sig, signed) for sig in signatures) if found), None)
    statement = json.loads(payload)
    for subject in statement["subject"]:
        digest = f"sha256:{subject['digest']['sha256']}"
        yield Statement(digest, str(statement["predicateType"]), statement.get("predicate"), identity)


def read_blob(view: RepositoryView, descriptor: Descriptor) -> bytes:
    """Read a small blob whole, checked against its digest.

    Raises:
        Untrustworthy: it is larger than 16 MiB, or other bytes than its digest says.
        NotFound: it is not there.
    """
    if descriptor.size > _LIMIT_BYTES:
        msg = f"{view.repository.name}@{descriptor.digest}: {descriptor.size} bytes is too much to look into"
        raise Untrustworthy(msg)
    reader = BlobReader(view.repository, descriptor)
    try:
        content = b"".join(reader.read(0, descriptor.size))
        reader.check()
    except NotFound as error:
        msg = f"{view.repository.name}@{descriptor.digest}: named by a manifest, but not there"
        raise NotFound(msg) from error
    finally:
        reader.close()
    return content
