"""What one registry knows of one image: its digest, and everything said of it and its platforms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from kilo.promotion.sbom import components
from kilo.registry.client import Registries
from kilo.registry.errors import NotFound
from kilo.registry.graph import RepositoryView
from kilo.registry.manifest import Descriptor, Manifest
from kilo.registry.reference import Reference
from kilo.registry.signatures import read_blob, read_statements
from kilo.registry.signers import Signers

_JSON_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, order=True, slots=True)
class Claim:
    """Something said of a digest: of what kind, its meaning in short, and the signer that vouches for it."""

    subject: str
    kind: str
    meaning: str
    identity: str

    def __str__(self) -> str:
        signed = f" signed by {self.identity}" if self.identity else " (signature not verified)"
        return f"{self.kind} of {self.subject[:19]}{signed if self.identity != 'unsigned' else ''}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """An image in one registry."""

    digest: str
    claims: frozenset[Claim]
    sboms: frozenset[tuple[str, str]]
    """Subject and component."""


def gather(registries: Registries, reference: Reference, signers: Signers) -> Evidence:
    """Read what the registry of ``reference`` knows of it.

    Raises:
        NotFound: it has no such tag.
        Untrustworthy, RegistryDown, AccessDenied: it can't be believed, or asked.
    """
    repository = registries.repository(reference)
    view = RepositoryView(repository)
    name = reference.digest or reference.tag or "latest"
    found = repository.resolve(name)
    if found is None:
        msg = f"{repository.place(name)}: no such tag"
        raise NotFound(msg)
    graph = view.graph(*found)
    claims: set[Claim] = set()
    sboms: set[tuple[str, str]] = set()
    for statement in read_statements(view, graph, signers):
        listed = _components(statement.predicate)
        if listed is not None:
            sboms |= {(statement.subject, component) for component in listed}
        meaning = "components" if listed is not None else _digest(statement.predicate)
        claims.add(Claim(statement.subject, statement.predicate_type, meaning, statement.identity or ""))
    for node in graph.nodes.values():
        attached = [referrer.digest for referrer in node.referrers]
        attached += [graph.cosign_tags[tag] for tag in node.tags if tag.endswith(".sbom")]
        for digest in attached:
            for claim, listed in _plain(view, view.read(digest), node.digest):
                claims.add(claim)
                sboms |= {(node.digest, component) for component in listed}
    return Evidence(graph.root, frozenset(claims), frozenset(sboms))


def _plain(view: RepositoryView, manifest: Manifest, subject: str) -> list[tuple[Claim, frozenset[str]]]:
    """Referrers that are no signed statements: SBOMs as they are, and artifacts of other kinds."""
    kind = manifest.descriptor().artifact_type or manifest.media_type
    if "sigstore.bundle" in kind or "cosign" in kind:
        return []
    found: list[tuple[Claim, frozenset[str]]] = []
    for layer in manifest.document.get("layers") or []:
        descriptor = Descriptor.parse(layer, manifest.place)
        listed = _components_of(view, descriptor)
        meaning = "components" if listed is not None else descriptor.digest
        found.append((Claim(subject, kind, meaning, "unsigned"), listed or frozenset()))
    return found


def _components_of(view: RepositoryView, descriptor: Descriptor) -> frozenset[str] | None:
    if "json" not in descriptor.media_type or descriptor.size > _JSON_LIMIT_BYTES:
        return None
    try:
        document = json.loads(read_blob(view, descriptor))
    except ValueError:
        return None
    return _components(document)


def _components(document: object) -> frozenset[str] | None:
    """None for a malformed SBOM too: it is compared by its bytes then."""
    try:
        return components(document)
    except ValueError:
        return None


def _digest(predicate: object) -> str:
    if predicate is None:
        return ""
    return hashlib.sha256(json.dumps(predicate, sort_keys=True).encode()).hexdigest()
