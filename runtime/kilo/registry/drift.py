"""Comparing both sides graph by graph, and telling the ways in which they can differ apart.

``DRIFT``: both sides have the tag and it means different bits. ``MISSING``: the destination lacks a
tag, or a part of its graph. ``MISSING-ATTESTATION``: the image is whole, but something that refers
to it (signature, SBOM, provenance) is not there. ``EXTRA``: only the destination has it; reported,
but no failure, since a source may expire what a mirror keeps. ``UNREACHABLE``: a side did not
answer, so nothing is known; never mistaken for a difference. ``UNREADABLE``: a side holds something
malformed, or of a type whose references are not known, so that nobody can say whether it is whole.

An index is compared with an index and a child with a child. Fallback tags are not compared as
tags: what they list is, so that a side with the referrers API equals one without.
"""

from __future__ import annotations

import fnmatch
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from kilo.errors import CheckFailed, KiloError, Unreachable
from kilo.registry.blobs import has_blob
from kilo.registry.client import Registries
from kilo.registry.errors import NotFound, Untrustworthy, unexpected
from kilo.registry.graph import (
    COSIGN_SUFFIXES,
    Graph,
    Node,
    RepositoryView,
    as_check,
    digest_of_tag,
    fallback_tag,
    misattached,
    require_kind,
    unreadable,
)
from kilo.registry.manifest import Manifest
from kilo.registry.reference import Reference

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """How the sides differ."""

    DRIFT = "DRIFT"
    MISSING = "MISSING"
    MISSING_ATTESTATION = "MISSING-ATTESTATION"
    EXTRA = "EXTRA"
    UNREACHABLE = "UNREACHABLE"
    UNREADABLE = "UNREADABLE"

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
    attachment: str = ""
    """Of a missing attachment: its digest or tag."""

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
    except Unreachable as error:
        return Comparison(source.name, 0, (Finding(Kind.UNREACHABLE, source.name, pattern, str(error)),))
    except KiloError as error:
        return unreadable_repository(source, error)
    except Exception as error:
        log.exception("%s", source.name)
        return unreadable_repository(source, unexpected(error))
    wanted = pattern if source.tag is None else source.tag
    tags = sorted(tag for tag in here | there if fnmatch.fnmatchcase(tag, wanted))
    if source.tag and not tags:
        msg = f"{source}: no such tag on either side"
        raise NotFound(msg)
    with ThreadPoolExecutor(jobs, thread_name_prefix="compare") as executor:
        findings = [finding for found in executor.map(comparer.compare, tags) for finding in found]
    if source.tag is None:
        findings += [
            Finding(Kind.UNREADABLE, source.name, "?", str(error))
            for view in (comparer.source, comparer.destination)
            for error in view.unreadable_tags
        ]
    return Comparison(source.name, len(tags), tuple(findings))


def unreadable_repository(source: Reference, error: KiloError) -> Comparison:
    """The comparison of what could not be read at all."""
    return Comparison(source.name, 0, (Finding(Kind.UNREADABLE, source.name, "*", str(error)),))


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
        except KiloError as error:
            return [self._finding(Kind.UNREADABLE, tag, str(error))]
        except Exception as error:
            log.exception("%s", self.source.repository.place(tag))
            return [self._finding(Kind.UNREADABLE, tag, str(unexpected(error)))]

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
        image = graph.structure()
        found = {node.digest: self._find(node, image) for node in graph.nodes.values()}
        # What can't be read at the source is not copied, and is no loss at the destination.
        lost = [node for node in graph.nodes.values() if found[node.digest] is None]
        wrong = {node.digest: error for node in lost if (error := self._read(node, image)) is not None}
        graph = graph.leave_out([*unreadable(graph, wrong), *misattached(graph)])
        for problem in graph.problems:
            yield self._finding(Kind.UNREADABLE, tag, str(problem.error))
        left_out = {problem.name for problem in graph.problems}
        for node in graph.nodes.values():
            yield from self._compare_node(tag, node, found[node.digest], attachment=node.digest not in image)
            listed = {entry.digest for entry in self.destination.referrers(node.digest)}
            for problem in self.destination.problems(node.digest):
                yield self._finding(Kind.UNREADABLE, tag, str(problem.error))
            expected = {entry.digest for entry in node.referrers}
            for digest in sorted(expected - listed):
                detail = f"the destination lists no referrer {digest} of {node.digest}"
                yield self._missing_attachment(tag, detail, digest)
            for digest in sorted(listed - expected - left_out):
                detail = f"only the destination lists {digest} as a referrer of {node.digest}"
                yield self._finding(Kind.EXTRA, tag, detail)
            yield from self._compare_cosign_tags(tag, node.digest, graph)

    def _find(self, node: Node, image: set[str]) -> Manifest | KiloError | None:
        """The node's manifest there, or what is wrong with it; raises if that is the image's own."""
        try:
            there = self.destination.repository.manifest(node.digest)
            if there is not None:
                require_kind(node, there)
        except (CheckFailed, NotFound) as error:
            if node.digest in image:
                raise
            return error
        return there

    def _read(self, node: Node, image: set[str]) -> CheckFailed | None:
        """What is wrong with the node's manifest at the source; raises if that is the image's own."""
        try:
            self.source.read_node(node)
        except (CheckFailed, NotFound) as error:
            if node.digest in image:
                raise
            return as_check(error)
        return None

    def _compare_node(
        self, tag: str, node: Node, there: Manifest | KiloError | None, *, attachment: bool
    ) -> Iterator[Finding]:
        """Compare one manifest and its blobs."""
        lacking = Kind.MISSING_ATTESTATION if attachment else Kind.MISSING
        if there is None:
            detail = f"the destination lacks the manifest {node.digest}"
            yield Finding(
                lacking, self.source.repository.name, tag, detail, node.digest if attachment else ""
            )
        elif isinstance(there, KiloError):
            kind = Kind.DRIFT if isinstance(there, Untrustworthy) else Kind.UNREADABLE
            yield self._finding(kind, tag, str(there))
        elif self._blobs:
            for blob in there.blobs:
                if not has_blob(self.destination.repository, blob.digest):
                    detail = f"the destination lacks the blob {blob.digest} of {node.digest}"
                    yield self._finding(lacking, tag, detail)

    def _missing_attachment(self, tag: str, detail: str, name: str) -> Finding:
        return Finding(Kind.MISSING_ATTESTATION, self.source.repository.name, tag, detail, name)

    def _compare_cosign_tags(self, tag: str, digest: str, graph: Graph) -> Iterator[Finding]:
        for name in (fallback_tag(digest) + suffix for suffix in COSIGN_SUFFIXES):
            expected = graph.cosign_tags.get(name)
            found = self.destination.repository.resolve(name) if name in self.destination.tags else None
            if expected and not found:
                yield self._missing_attachment(tag, f"the destination lacks the tag {name}", name)
            elif expected and found and found[0] != expected:
                detail = f"{name} is {expected} at the source and {found[0]} at the destination"
                yield self._finding(Kind.DRIFT, tag, detail)
            elif found and not expected:
                yield self._finding(Kind.EXTRA, tag, f"only the destination has the tag {name}")

    def _finding(self, kind: Kind, tag: str, detail: str) -> Finding:
        return Finding(kind, self.source.repository.name, tag, detail)


def _ordinary(tags: Iterable[str]) -> set[str]:
    return {tag for tag in tags if digest_of_tag(tag) is None}


def _difference(here: Manifest, there: Manifest) -> str:
    platforms = {child.digest: child.platform for child in here.children}
    if there.digest in platforms:
        platform = "/".join(platforms[there.digest].values()) or "platform"
        return (
            f"the index {here.digest} at the source, "
            f"only its {platform} child {there.digest} at the destination"
        )
    return f"{here.digest} at the source, {there.digest} at the destination"
