"""The graph below a tag: its manifests in an order in which they may be pushed, and what refers to them.

A referrer is found in three ways, all of them at once: by the referrers API, by the fallback tag
``sha256-HEX`` where the registry has no API (distribution-spec, "referrers tag schema"), and by
cosign's tags ``sha256-HEX.sig``, ``.att`` and ``.sbom``. Referrers are looked for at every manifest
of the graph: an SBOM hangs off a platform's manifest as often as off the index.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kilo.registry.client import Repository
from kilo.registry.errors import NotFound, Untrustworthy
from kilo.registry.manifest import INDEXES, OCI_INDEX, Descriptor, Manifest

COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
MANIFESTS_LIMIT = 20_000

_DIGEST_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64}|[0-9a-f]{128})(\.[a-z]+)?")


def fallback_tag(digest: str) -> str:
    """The tag under which a registry without the referrers API keeps the referrers of ``digest``."""
    return digest.replace(":", "-")


def digest_of_tag(tag: str) -> str | None:
    """The digest that a fallback or cosign tag belongs to; None for an ordinary tag."""
    match = _DIGEST_TAG.fullmatch(tag)
    return f"{match[1]}:{match[2]}" if match else None


def referrers_index(entries: Iterable[Descriptor]) -> Manifest:
    """The index that a fallback tag points at (distribution-spec, "referrers tag schema")."""
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.document() for entry in entries],
    }
    return Manifest.of(json.dumps(index, separators=(",", ":")).encode(), OCI_INDEX)


@dataclass(slots=True)
class Node:
    """A manifest of the graph; its bytes are read when they are needed."""

    digest: str
    media_type: str
    manifest: Manifest | None = None
    referrers: tuple[Descriptor, ...] = ()
    tags: tuple[str, ...] = ()
    """Cosign's tags of this manifest."""


@dataclass(slots=True)
class Graph:
    """What hangs below one root, children before parents, each manifest before its referrers."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)
    cosign_tags: dict[str, str] = field(default_factory=dict)
    """Digest by tag."""

    def generations(self) -> list[list[Node]]:
        """The manifests in groups: what a manifest names or refers to is in a group before its own."""
        depths: dict[str, int] = {}
        for node in self.nodes.values():
            children = node.manifest.children if node.manifest is not None else ()
            below = (depths[child.digest] for child in children if child.digest in depths)
            depth = max([depths.get(node.digest, 0), *(each + 1 for each in below)])
            depths[node.digest] = depth
            attached = [entry.digest for entry in node.referrers]
            for digest in (
                *attached,
                *(self.cosign_tags[tag] for tag in node.tags if tag in self.cosign_tags),
            ):
                depths.setdefault(digest, depth + 1)
        found: dict[int, list[Node]] = {}
        for node in self.nodes.values():
            found.setdefault(depths[node.digest], []).append(node)
        return [found[depth] for depth in sorted(found)]


class RepositoryView:
    """One repository as it is during one run: its tags, and what was already asked of it. Thread-safe."""

    def __init__(self, repository: Repository, tags: Iterable[str] | None = None) -> None:
        self.repository = repository
        self._tags = None if tags is None else frozenset(tags)
        self._referrers: dict[str, tuple[Descriptor, ...]] = {}
        self._has_api: bool | None = None
        self._lock = threading.Lock()
        self._probe = threading.Lock()

    @property
    def tags(self) -> frozenset[str]:
        """All tags, as they were when first asked for."""
        with self._lock:
            if self._tags is None:
                self._tags = frozenset(self.repository.tags())
            return self._tags

    @property
    def has_referrers_api(self) -> bool:
        """Whether the registry answered a referrers request with a list. Known once one was sent."""
        return bool(self._has_api)

    def read(self, digest: str) -> Manifest:
        """Read a manifest that the graph names.

        Raises:
            NotFound: the repository does not hold it.
        """
        manifest = self.repository.manifest(digest)
        if manifest is None:
            msg = f"{self.repository.place(digest)}: named by the graph, but not there"
            raise NotFound(msg)
        return manifest

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """List what refers to ``digest``, by API and fallback tag, each referrer once.

        ``digest`` must be in the repository: a registry with the API answers 200 for any digest of
        a repository that exists, so a 404 means that it has none.
        """
        if digest not in self._referrers:
            found = {entry.digest: entry for entry in self._ask(digest)}
            self._referrers[digest] = tuple(found[key] for key in sorted(found))
        return self._referrers[digest]

    def add_tag(self, tag: str) -> None:
        """Take note of a tag that was written."""
        known = self.tags
        with self._lock:
            self._tags = (self._tags or known) | {tag}

    def forget_referrers(self, digest: str) -> None:
        """Ask again the next time: the list was changed."""
        self._referrers.pop(digest, None)

    def graph(self, root: str, media_type: str) -> Graph:
        """Read the graph below the manifest ``root``; only indexes are fetched.

        Raises:
            NotFound: the graph names an index that is not there.
            Untrustworthy: a manifest is not what its digest says, or there is no end of them.
        """
        graph = Graph(root)
        self._visit(graph, root, media_type)
        return graph

    def _visit(self, graph: Graph, digest: str, media_type: str) -> None:
        if digest in graph.nodes:
            return
        if len(graph.nodes) >= MANIFESTS_LIMIT:
            msg = f"{self.repository.place(graph.root)}: more than {MANIFESTS_LIMIT} manifests in one graph"
            raise Untrustworthy(msg)
        node = Node(digest, media_type)
        if media_type in INDEXES:
            node.manifest = self.read(digest)
            for child in node.manifest.children:
                if child.distributable:
                    self._visit(graph, child.digest, child.media_type)
        node.referrers = self.referrers(digest)
        graph.nodes[digest] = node
        for referrer in node.referrers:
            self._visit(graph, referrer.digest, referrer.media_type)
        self._visit_cosign_tags(graph, node)

    def _visit_cosign_tags(self, graph: Graph, node: Node) -> None:
        named = (fallback_tag(node.digest) + suffix for suffix in COSIGN_SUFFIXES)
        node.tags = tuple(tag for tag in named if tag in self.tags)
        for tag in node.tags:
            found = self.repository.resolve(tag)
            if found:
                graph.cosign_tags[tag] = found[0]
                self._visit(graph, *found)

    def _ask(self, digest: str) -> Iterator[Descriptor]:
        if self._has_api is None:
            # One asks first, so that a registry without the API is not asked by every thread.
            with self._probe:
                listed = self._ask_api(digest)
        else:
            listed = self._ask_api(digest)
        yield from listed
        tag = fallback_tag(digest)
        if tag in self.tags:
            index = self.repository.manifest(tag)
            if index is not None and index.media_type == OCI_INDEX:
                yield from index.children

    def _ask_api(self, digest: str) -> list[Descriptor]:
        if self._has_api is False:
            return []
        listed = self.repository.referrers(digest)
        self._has_api = listed is not None
        return listed or []
