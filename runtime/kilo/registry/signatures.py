"""Signatures of images, and what they and attestations say.

Two forms are understood: cosign's simple signing under the ``.sig`` tag
(https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md), and Sigstore bundles with a
DSSE envelope, which cosign 3 attaches as referrers
(https://github.com/sigstore/protobuf-specs, https://github.com/secure-systems-lab/dsse). A signature
counts when one of the signers made it over a statement that names the very digest.

Keyless signatures count in the second form alone: the first carries no proof that its entry is in
the transparency log, and so is never taken as good.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from kilo.errors import CheckFailed
from kilo.registry.blobs import BlobReader
from kilo.registry.errors import NotFound, Untrustworthy
from kilo.registry.graph import Graph, RepositoryView
from kilo.registry.manifest import Descriptor, Manifest
from kilo.registry.signers import Signers

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURES = frozenset({SIMPLE_SIGNING, "https://sigstore.dev/cosign/sign/v1"})
"""Statements that say no more than that somebody signed the image."""

BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody said of a digest, and which of the given signers said it, if one did."""

    subject: str
    predicate_type: str
    predicate: object
    identity: str | None


class SignaturePolicy:
    """Requires every image to be signed by one of the signers."""

    def __init__(self, signers: Signers) -> None:
        self._signers = signers

    def check(self, view: RepositoryView, graph: Graph) -> None:
        """Require a good signature of the graph's root.

        Raises:
            CheckFailed: there is none.
        """
        if not any(
            statement.identity and statement.subject == graph.root and statement.predicate_type in SIGNATURES
            for statement in read_statements(view, graph, self._signers)
        ):
            msg = f"{view.repository.place(graph.root)}: no signature by a required signer; quarantined"
            raise CheckFailed(msg)


def read_statements(view: RepositoryView, graph: Graph, signers: Signers) -> Iterator[Statement]:
    """Everything that signatures and attestations of the graph's manifests say, and who said it."""
    for node in graph.nodes.values():
        for tag in node.tags:
            manifest = view.read(graph.cosign_tags[tag])
            yield from _of_manifest(view, manifest, node.digest, signers)
        for referrer in node.referrers:
            yield from _of_manifest(view, view.read(referrer.digest), node.digest, signers)


def _of_manifest(
    view: RepositoryView, manifest: Manifest, subject: str, signers: Signers
) -> Iterator[Statement]:
    for layer in cast("list[dict[str, Any]]", manifest.document.get("layers") or []):
        media_type = str(layer.get("mediaType", ""))
        if media_type != SIMPLE_SIGNING and not media_type.startswith(BUNDLE) and "dsse" not in media_type:
            continue
        content = read_blob(view, Descriptor.parse(layer, manifest.place))
        try:
            if media_type == SIMPLE_SIGNING:
                yield _simple(content, cast("dict[str, str]", layer.get("annotations") or {}), signers)
            else:
                document = json.loads(content)
                yield from _envelope(content, document.get("dsseEnvelope", document), signers)
        except (ValueError, LookupError, TypeError, binascii.Error) as error:
            msg = f"{manifest.place}: a signature of {subject} can't be read: {type(error).__name__}"
            raise Untrustworthy(msg) from error


def _simple(content: bytes, annotations: dict[str, str], signers: Signers) -> Statement:
    critical = json.loads(content)["critical"]
    signature = base64.b64decode(annotations[_SIGNATURE_ANNOTATION])
    digest = str(critical["image"]["docker-manifest-digest"])
    return Statement(digest, SIMPLE_SIGNING, None, signers.keys.identify(signature, content))


def _envelope(bundle: bytes, envelope: dict[str, Any], signers: Signers) -> Iterator[Statement]:
    payload = base64.b64decode(envelope["payload"])
    kind = str(envelope["payloadType"]).encode()
    # DSSE's pre-authentication encoding.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signatures = [base64.b64decode(entry["sig"]) for entry in envelope["signatures"]]
    by_key = (signers.keys.identify(signature, signed) for signature in signatures)
    identity = next((found for found in by_key if found), None) or signers.identities.identify(bundle)
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
