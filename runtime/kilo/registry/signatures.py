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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from kilo.errors import CheckFailed
from kilo.registry import media
from kilo.registry.blobs import BlobReader
from kilo.registry.errors import NotAttachment, NotFound, Unreadable
from kilo.registry.graph import Graph, Node, Problem, RepositoryView, as_check
from kilo.registry.manifest import Descriptor, Manifest
from kilo.registry.parsing import parse_object
from kilo.registry.signers import Signers

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURES = frozenset({SIMPLE_SIGNING, "https://sigstore.dev/cosign/sign/v1"})
"""Statements that say no more than that somebody signed the image."""

BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, binascii.Error)
_ALGORITHMS = ("sha256", "sha512")
_SIGNATURES_LIMIT = 32
"""Of one envelope: each is tried with every key."""

_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody said of a digest, and which of the given signers said it, if one did."""

    subject: str
    predicate_type: str
    predicate: object
    identity: str | None


class SignaturePolicy:
    """Requires every image to be signed by one of the signers, and every attachment to be one."""

    def __init__(self, signers: Signers) -> None:
        self._signers = signers

    def check(self, view: RepositoryView, graph: Graph) -> list[Problem]:
        """Require a good signature of the graph's root.

        Returns:
            The attachments that are images in disguise, and not signed either.

        Raises:
            CheckFailed: the root has no good signature.
        """
        signed = {
            statement.subject
            for statement in read_statements(view, graph, self._signers)
            if statement.identity and statement.predicate_type in SIGNATURES
        }
        if graph.root not in signed:
            msg = f"{view.repository.place(graph.root)}: no signature by a required signer; quarantined"
            raise CheckFailed(msg)
        image = graph.structure()
        return [
            Problem(subject.digest, name, error)
            for subject, name, attached in graph.attachments()
            if attached.digest not in image | signed
            and (error := _not_attachment(view, subject, attached)) is not None
        ]


_EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""Of ``{}``, the empty descriptor's content: https://github.com/opencontainers/image-spec/blob/main/manifest.md."""


def _not_attachment(view: RepositoryView, subject: Node, attached: Node) -> CheckFailed | None:
    """Why this may not be copied unsigned: a container runtime could be made to run it.

    A runtime goes by the media types of layers and configuration. Cosign 2's signatures have an image's
    configuration; what tells them from an image is that their layers are text, which no archive is.
    """
    try:
        manifest = view.read_node(attached)
        why = ""
        if manifest.is_index:
            why = "is an index"
        elif manifest.config is not None and manifest.config.digest == _EMPTY:
            # An image of layers names each in its configuration, without which none is unpacked. So this is
            # an artifact, whatever its layers' types: a file that `oras attach` takes is said to be a layer.
            pass
        elif running := next((layer for layer in manifest.layers if media.runs(layer.media_type)), None):
            why = f"has a layer of {media.normalize(running.media_type)}"
        elif (
            manifest.config is not None
            and media.is_image_config(manifest.config.media_type)
            and not all(_is_text(read_blob(view, layer)) for layer in manifest.layers)
        ):
            why = "has an image's configuration and layers that are no text"
    except (CheckFailed, NotFound) as error:
        return as_check(error)
    if not why:
        return None
    msg = (
        f"{view.repository.place(attached.digest)}: attached to {subject.digest}, but {why}, "
        "and is not signed by a required signer; quarantined"
    )
    return NotAttachment(msg)


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def find_signer(view: RepositoryView, graph: Graph, signers: Signers) -> str | None:
    """Which of ``signers`` signed the graph's root itself; None when none of them did."""
    return next(
        (
            said.identity
            for said in read_statements(view, graph, signers)
            if said.identity and said.subject == graph.root and said.predicate_type in SIGNATURES
        ),
        None,
    )


def read_statements(
    view: RepositoryView,
    graph: Graph,
    signers: Signers,
    on_problem: Callable[[Problem], None] = lambda _: None,
) -> Iterator[Statement]:
    """Everything that signatures and attestations of the graph's manifests say, and who said it.

    One that can't be read says nothing, and does not keep the others from being heard; ``on_problem``
    is told of it.
    """
    for subject, name, attached in graph.attachments():
        try:
            manifest = view.read_node(attached)
        except (CheckFailed, NotFound) as error:
            on_problem(Problem(subject.digest, name, as_check(error)))
            continue
        for layer in manifest.layers:
            try:
                yield from list(_of_layer(view, manifest, layer, signers))
            except (CheckFailed, NotFound) as error:
                on_problem(Problem(subject.digest, layer.digest, as_check(error)))


def _of_layer(
    view: RepositoryView, manifest: Manifest, layer: Descriptor, signers: Signers
) -> Iterator[Statement]:
    media_type = media.normalize(layer.media_type)
    if media_type != SIMPLE_SIGNING and not media_type.startswith(BUNDLE) and "dsse" not in media_type:
        return
    content = read_blob(view, layer)
    place = f"{manifest.place}: {layer.digest}"
    if media_type != SIMPLE_SIGNING:
        yield from read_bundle(content, place, signers)
        return
    document = parse_object(content, place)
    try:
        yield _simple(content, document, layer.annotations, signers)
    except _MALFORMED as error:
        raise _unreadable(place, error) from error


def read_bundle(content: bytes, place: str, signers: Signers) -> Iterator[Statement]:
    """What a Sigstore bundle, or a bare DSSE envelope, says; ``place`` names it in messages.

    Raises:
        Unreadable: it is neither.
    """
    document = parse_object(content, place)
    try:
        yield from list(_envelope(content, document.get("dsseEnvelope", document), signers))
    except _MALFORMED as error:
        raise _unreadable(place, error) from error


def _unreadable(place: str, error: Exception) -> Unreadable:
    return Unreadable(f"{place}: a signature that can't be read ({type(error).__name__})")


def _simple(
    content: bytes, document: Mapping[str, Any], annotations: Mapping[str, str], signers: Signers
) -> Statement:
    signature = base64.b64decode(annotations[_SIGNATURE_ANNOTATION])
    digest = str(document["critical"]["image"]["docker-manifest-digest"])
    return Statement(digest, SIMPLE_SIGNING, None, signers.keys.identify(signature, content))


def _envelope(bundle: bytes, envelope: Mapping[str, Any], signers: Signers) -> Iterator[Statement]:
    payload = base64.b64decode(envelope["payload"])
    kind = str(envelope["payloadType"]).encode()
    # DSSE's pre-authentication encoding.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signatures = [base64.b64decode(entry["sig"]) for entry in envelope["signatures"][:_SIGNATURES_LIMIT]]
    by_key = (signers.keys.identify(signature, signed) for signature in signatures)
    identity = next((found for found in by_key if found), None) or signers.identities.identify(bundle)
    statement = parse_object(payload, "payload")
    predicate_type = str(statement["predicateType"])
    for subject in cast("list[Any]", statement["subject"]):
        for algorithm in _ALGORITHMS:
            if value := subject["digest"].get(algorithm):
                yield Statement(f"{algorithm}:{value}", predicate_type, statement.get("predicate"), identity)


def read_blob(view: RepositoryView, descriptor: Descriptor) -> bytes:
    """Read a small blob whole, checked against its digest.

    Raises:
        Unreadable: it is larger than 16 MiB.
        Untrustworthy: it has other bytes than its digest says.
        NotFound: it is not there.
    """
    if descriptor.size > _LIMIT_BYTES:
        msg = f"{view.repository.name}@{descriptor.digest}: {descriptor.size} bytes is too much to look into"
        raise Unreadable(msg)
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
