"""What one registry knows of one image: its digest, and everything said of it and its platforms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from kilo.errors import CheckFailed
from kilo.promotion.sbom import components
from kilo.registry.client import Registries
from kilo.registry.errors import NotFound, Unreadable
from kilo.registry.graph import Problem, RepositoryView, as_check
from kilo.registry.manifest import Descriptor, Manifest
from kilo.registry.parsing import parse_json
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
    problems = list(graph.problems)
    claims: set[Claim] = set()
    sboms: set[tuple[str, str]] = set()
    for statement in read_statements(view, graph, signers, problems.append):
        listed = _components(statement.predicate)
        if listed is not None:
            sboms |= {(statement.subject, component) for component in listed}
        meaning = "components" if listed is not None else _digest(statement.predicate)
        claims.add(Claim(statement.subject, statement.predicate_type, meaning, statement.identity or ""))
    for subject, name, attached in graph.attachments():
        if name.endswith((".sig", ".att")):
            continue
        try:
            plain = _plain(view, view.read_node(attached), subject.digest)
        except (CheckFailed, NotFound) as error:
            problems.append(Problem(subject.digest, name, as_check(error)))
            continue
        for claim, listed in plain:
            claims.add(claim)
            sboms |= {(subject.digest, component) for component in listed}
    # What can't be read is compared by its digest: it is the same everywhere, or it is a difference.
    claims |= {Claim(problem.subject, "unreadable", problem.name, "unsigned") for problem in problems}
    return Evidence(graph.root, frozenset(claims), frozenset(sboms))


def _plain(view: RepositoryView, manifest: Manifest, subject: str) -> list[tuple[Claim, frozenset[str]]]:
    """Referrers that are no signed statements: SBOMs as they are, and artifacts of other kinds."""
    kind = manifest.kind
    if "sigstore.bundle" in kind or "cosign" in kind:
        return []
    found: list[tuple[Claim, frozenset[str]]] = []
    for layer in manifest.layers:
        listed = _components_of(view, layer)
        meaning = "components" if listed is not None else layer.digest
        found.append((Claim(subject, kind, meaning, "unsigned"), listed or frozenset()))
    return found


def _components_of(view: RepositoryView, descriptor: Descriptor) -> frozenset[str] | None:
    if "json" not in descriptor.media_type or descriptor.size > _JSON_LIMIT_BYTES:
        return None
    try:
        document = parse_json(read_blob(view, descriptor), descriptor.digest)
    except Unreadable:
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
