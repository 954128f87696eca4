"""Comparing both sides graph by graph, and telling the ways in which they can differ apart.

``DRIFT``: both sides have the tag and it means different bits. ``MISSING``: the destination lacks a
tag, or a part of its graph. ``MISSING-ATTESTATION``: the image is whole, but something that refers
to it (signature, SBOM, provenance) is not there. ``EXTRA``: only the destination has it; reported,
but no failure, since a source may expire what a mirror keeps. ``UNREACHABLE``: a side did not
answer, so nothing is known; never mistaken for a difference.

An index is compared with an index and a child with a child. Fallback tags are not compared as
tags: what they list is, so that a side with the referrers API equals one without.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from kilo.errors import KiloError, Unreachable
from kilo.registry.blobs import has_blob
from kilo.registry.client import Registries
from kilo.registry.errors import NotFound, Untrustworthy
from kilo.registry.graph import COSIGN_SUFFIXES, Graph, RepositoryView, digest_of_tag, fallback_tag
from kilo.registry.manifest import Manifest
from kilo.registry.reference import Reference


class Kind(StrEnum):
    """How the sides differ."""

    DRIFT = "DRIFT"
    MISSING = "MISSING"
    MISSING_ATTESTATION = "MISSING-ATTESTATION"
    EXTRA = "EXTRA"
    UNREACHABLE = "UNREACHABLE"

    @property
    def label(self) -> str:
        """The value of the metric's ``finding`` label."""
        return self.value.lower().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: of what kind, at which tag, and what exactly."""

    kind: Kind
    repository: str
    tag: str
    detail: str

    def document(self) -> dict[str, str]:
        """The JSON form."""
        return {
            "kind": self.kind.value,
            "repository": self.repository,
            "tag": self.tag,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison of one repository found, and how many tags it compared."""

    repository: str
    tags: int
    findings: tuple[Finding, ...]

    def counts(self) -> Counter[Kind]:
        """How many findings there are of each kind."""
        return Counter(finding.kind for finding in self.findings)


def compare(
    registries: Registries,
    source: Reference,
    destination: Reference,
    *,
    pattern: str = "*",
    blobs: bool = True,
    jobs: int = 8,
) -> Comparison:
    """Compare a repository's tags (its one tag, if ``source`` names one) with the destination's.

    With ``blobs`` the destination is asked for every blob, too. Never raises for a side that can't
    be reached: that is a finding.
    """
    comparer = _Comparer(
        RepositoryView(registries.repository(source)),
        RepositoryView(registries.repository(destination)),
        blobs=blobs,
    )
    try:
        here, there = _ordinary(comparer.source.tags), _ordinary(comparer.destination.tags)
    except KiloError as error:
        return Comparison(source.name, 0, (Finding(Kind.UNREACHABLE, source.name, pattern, str(error)),))
    wanted = pattern if source.tag is None else source.tag
    tags = sorted(tag for tag in here | there if fnmatch.fnmatchcase(tag, wanted))
    if source.tag and not tags:
        msg = f"{source}: no such tag on either side"
        raise NotFound(msg)
    with ThreadPoolExecutor(jobs, thread_name_prefix="compare") as executor:
        findings = [finding for found in executor.map(comparer.compare, tags) for finding in found]
    return Comparison(source.name, len(tags), tuple(findings))


class _Comparer:
    def __init__(self, source: RepositoryView, destination: RepositoryView, *, blobs: bool) -> None:
        self.source = source
        self.destination = destination
        self._blobs = blobs

    def compare(self, tag: str) -> list[Finding]:
        """Compare one tag. Exceptions become findings."""
        try:
            return list(self._compare(tag))
        except Unreachable as error:
            return [self._finding(Kind.UNREACHABLE, tag, str(error))]
        except Untrustworthy as error:
            return [self._finding(Kind.DRIFT, tag, str(error))]

    def _compare(self, tag: str) -> Iterator[Finding]:
        here = self.source.repository.manifest(tag) if tag in self.source.tags else None
        there = self.destination.repository.manifest(tag) if tag in self.destination.tags else None
        if here is None and there is not None:
            yield self._finding(Kind.EXTRA, tag, f"only the destination has it, at {there.digest}")
        elif here is not None and there is None:
            yield self._finding(Kind.MISSING, tag, f"the source has it at {here.digest}")
        elif here is not None and there is not None and here.digest != there.digest:
            yield self._finding(Kind.DRIFT, tag, _difference(here, there))
        elif here is not None:
            graph = self.source.graph(here.digest, here.media_type)
            yield from self._compare_graphs(tag, graph)

    def _compare_graphs(self, tag: str, graph: Graph) -> Iterator[Finding]:
        structure = _structure(graph)
        for node in graph.nodes.values():
            attestation = node.digest not in structure
            lacking = Kind.MISSING_ATTESTATION if attestation else Kind.MISSING
            there = self.destination.repository.manifest(node.digest)
            if there is None:
                yield self._finding(lacking, tag, f"the destination lacks the manifest {node.digest}")
                continue
            for blob in there.blobs if self._blobs else ():
                if not has_blob(self.destination.repository, blob.digest):
                    detail = f"the destination lacks the blob {blob.digest} of {node.digest}"
                    yield self._finding(lacking, tag, detail)
            listed = {entry.digest for entry in self.destination.referrers(node.digest)}
            expected = {entry.digest for entry in node.referrers}
            for digest in sorted(expected - listed):
                detail = f"the destination lists no referrer {digest} of {node.digest}"
                yield self._finding(Kind.MISSING_ATTESTATION, tag, detail)
            for digest in sorted(listed - expected):
                detail = f"only the destination lists {digest} as a referrer of {node.digest}"
                yield self._finding(Kind.EXTRA, tag, detail)
            yield from self._compare_cosign_tags(tag, node.digest, graph)

    def _compare_cosign_tags(self, tag: str, digest: str, graph: Graph) -> Iterator[Finding]:
        for name in (fallback_tag(digest) + suffix for suffix in COSIGN_SUFFIXES):
            expected = graph.cosign_tags.get(name)
            found = self.destination.repository.resolve(name) if name in self.destination.tags else None
            if expected and not found:
                yield self._finding(Kind.MISSING_ATTESTATION, tag, f"the destination lacks the tag {name}")
            elif expected and found and found[0] != expected:
                detail = f"{name} is {expected} at the source and {found[0]} at the destination"
                yield self._finding(Kind.DRIFT, tag, detail)
            elif found and not expected:
                yield self._finding(Kind.EXTRA, tag, f"only the destination has the tag {name}")

    def _finding(self, kind: Kind, tag: str, detail: str) -> Finding:
        return Finding(kind, self.source.repository.name, tag, detail)


def _ordinary(tags: Iterable[str]) -> set[str]:
    return {tag for tag in tags if digest_of_tag(tag) is None}


def _structure(graph: Graph) -> set[str]:
    found: set[str] = set()
    waiting = [graph.root]
    while waiting:
        node = graph.nodes[waiting.pop()]
        found.add(node.digest)
        if node.manifest is not None:
            waiting += [child.digest for child in node.manifest.children if child.digest in graph.nodes]
    return found


def _difference(here: Manifest, there: Manifest) -> str:
    platforms = {child.digest: child.platform for child in here.children}
    if there.digest in platforms:
        platform = "/".join(platforms[there.digest].values()) or "platform"
        return (
            f"the index {here.digest} at the source, "
            f"only its {platform} child {there.digest} at the destination"
        )
    return f"{here.digest} at the source, {there.digest} at the destination"
