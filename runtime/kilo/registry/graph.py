"""The graph below a tag: its manifests in an order in which they may be pushed, and what refers to them.

A referrer is found in three ways, all of them at once: by the referrers API, by the fallback tag
``sha256-HEX`` where the registry has no API (distribution-spec, "referrers tag schema"), and by
cosign's tags ``sha256-HEX.sig``, ``.att`` and ``.sbom``. Referrers are looked for at every manifest
of the graph: an SBOM hangs off a platform's manifest as often as off the index.

What is wrong with the image itself ends its reading. What is wrong with an attachment, which anybody
may push who may push anything, is noted in :attr:`Graph.problems`, and the attachment is left out.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from kilo.errors import CheckFailed
from kilo.registry.client import Listing, Names, Repository
from kilo.registry.errors import NotAttachment, NotFound, Unreadable
from kilo.registry.manifest import Descriptor, Manifest, digest_of
from kilo.registry.media import INDEXES, KNOWN, OCI_INDEX, normalize
from kilo.registry.parsing import printable

COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
MANIFESTS_LIMIT = 20_000
DEPTH_LIMIT = 32
"""Indexes within indexes, and attachments of attachments."""

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
    content = json.dumps(index, separators=(",", ":")).encode()
    # Not parsed: it may list manifests of types that are not copied, which others have put there.
    return Manifest(content, OCI_INDEX, digest_of(content), "list of referrers")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attachment is left out."""

    subject: str
    """The digest that it is attached to."""
    name: str
    """Its digest, or the tag that names it."""
    error: CheckFailed


@dataclass(slots=True)
class Node:
    """A manifest of the graph; its bytes are read when they are needed."""

    digest: str
    media_type: str
    manifest: Manifest | None = None
    referrers: tuple[Descriptor, ...] = ()
    tags: tuple[str, ...] = ()
    """Cosign's tags of this manifest."""

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What an index names; of other manifests nothing."""
        return self.manifest.children if self.manifest is not None else ()


@dataclass(slots=True)
class Graph:
    """What hangs below one root, children before parents, each manifest before its referrers."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)
    cosign_tags: dict[str, str] = field(default_factory=dict)
    """Digest by tag."""
    problems: list[Problem] = field(default_factory=list)
    visits: int = 0

    def generations(self) -> list[list[Node]]:
        """The manifests in groups: what a manifest names or refers to is in a group before its own."""
        depths: dict[str, int] = {}
        for node in self.nodes.values():
            below = (depths[child.digest] for child in node.children if child.digest in depths)
            depth = max([depths.get(node.digest, 0), *(each + 1 for each in below)])
            depths[node.digest] = depth
            for _, digest in self.attached_to(node):
                depths.setdefault(digest, depth + 1)
        found: dict[int, list[Node]] = {}
        for node in self.nodes.values():
            found.setdefault(depths[node.digest], []).append(node)
        return [found[depth] for depth in sorted(found)]

    def attached_to(self, node: Node) -> list[tuple[str, str]]:
        """What is attached to the node itself: digests by digest or tag."""
        tagged = [(tag, self.cosign_tags[tag]) for tag in node.tags if tag in self.cosign_tags]
        return [*((entry.digest, entry.digest) for entry in node.referrers), *tagged]

    def attachments(self) -> Iterator[tuple[Node, str, Node]]:
        """Every attachment: what it is attached to, its digest or tag, and itself."""
        for node in self.nodes.values():
            for name, digest in self.attached_to(node):
                if digest in self.nodes:
                    yield node, name, self.nodes[digest]

    def structure(self, root: str | None = None) -> set[str]:
        """Digests of the image itself, without its attachments; or of what hangs below another ``root``."""
        found: set[str] = set()
        waiting = [root or self.root]
        while waiting:
            node = self.nodes[waiting.pop()]
            if node.digest not in found:
                found.add(node.digest)
                waiting += [child.digest for child in node.children if child.digest in self.nodes]
        return found

    def leave_out(self, problems: Iterable[Problem]) -> Graph:
        """The graph without these attachments, and without what hangs off them alone."""
        problems = tuple(problems)
        if not problems:
            return self
        refused = {(problem.subject, problem.name) for problem in problems}
        kept: dict[str, Node] = {}
        waiting = [self.root]
        while waiting:
            node = self.nodes[waiting.pop()]
            if node.digest in kept:
                continue
            attached = [
                (name, digest)
                for name, digest in self.attached_to(node)
                if (node.digest, name) not in refused and digest in self.nodes
            ]
            names = {name for name, _ in attached}
            kept[node.digest] = replace(
                node,
                referrers=tuple(entry for entry in node.referrers if entry.digest in names),
                tags=tuple(tag for tag in node.tags if tag in names),
            )
            waiting += [child.digest for child in node.children if child.digest in self.nodes]
            waiting += [digest for _, digest in attached]
        tags = {tag: self.cosign_tags[tag] for node in kept.values() for tag in node.tags}
        in_order = {digest: kept[digest] for digest in self.nodes if digest in kept}
        return Graph(self.root, in_order, tags, [*self.problems, *problems])


class RepositoryView:
    """One repository as it is during one run: its tags, and what was already asked of it. Thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._tags: Names | None = None
        self._referrers: dict[str, tuple[Descriptor, ...]] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._has_api: bool | None = None
        self._lock = threading.Lock()
        self._probe = threading.Lock()

    @property
    def tags(self) -> frozenset[str]:
        """All tags, as they were when first asked for."""
        return self._listed().names

    @property
    def unreadable_tags(self) -> tuple[Unreadable, ...]:
        """What the list of tags has besides tags."""
        return self._listed().unreadable

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

    def read_node(self, node: Node) -> Manifest:
        """Read the node's manifest, once.

        Raises:
            NotFound: the repository does not hold it.
            Unreadable: it is of another type than it was said to be where it is named.
        """
        if node.manifest is None:
            manifest = self.read(node.digest)
            require_kind(node, manifest)
            node.manifest = manifest
        return node.manifest

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """List what refers to ``digest``, by API and fallback tag, each referrer once.

        ``digest`` must be in the repository: a registry with the API answers 200 for any digest of
        a repository that exists, so another answer means that it has none.
        """
        if digest not in self._referrers:
            problems: list[Problem] = []
            found = {entry.digest: entry for entry in self._ask(digest, problems)}
            self._problems[digest] = tuple(problems)
            self._referrers[digest] = tuple(found[key] for key in sorted(found))
        return self._referrers[digest]

    def problems(self, digest: str) -> tuple[Problem, ...]:
        """What could not be read of the list of ``digest``'s referrers, once that was asked for."""
        return self._problems.get(digest, ())

    def add_tag(self, tag: str) -> None:
        """Take note of a tag that was written."""
        known = self._listed()
        with self._lock:
            self._tags = Names((self._tags or known).names | {tag}, known.unreadable)

    def forget_referrers(self, digest: str) -> None:
        """Ask again the next time: the list was changed."""
        self._referrers.pop(digest, None)

    def graph(self, root: str, media_type: str) -> Graph:
        """Read the graph below the manifest ``root``; only indexes are fetched.

        Raises:
            NotFound: the graph names an index that is not there.
            Untrustworthy: a manifest of the image is not what its digest says.
            Unreadable: one is malformed, or there is no end of them.
        """
        graph = Graph(root)
        self._visit(graph, Node(root, media_type), 0)
        return graph

    def _visit(self, graph: Graph, node: Node, depth: int) -> None:
        if node.digest in graph.nodes:
            return
        self._require_limits(graph, node.digest, depth)
        if node.media_type in INDEXES:
            for child in self.read_node(node).children:
                if child.distributable:
                    self._visit(graph, Node(child.digest, normalize(child.media_type)), depth + 1)
        node.referrers = self.referrers(node.digest)
        graph.problems += self.problems(node.digest)
        graph.nodes[node.digest] = node
        node.referrers = tuple(
            entry
            for entry in node.referrers
            if self._attach(
                graph, node, entry.digest, lambda entry=entry: self._visit_referrer(graph, entry, depth)
            )
        )
        named = (fallback_tag(node.digest) + suffix for suffix in COSIGN_SUFFIXES)
        node.tags = tuple(
            tag
            for tag in named
            if tag in self.tags
            and self._attach(graph, node, tag, lambda tag=tag: self._visit_cosign_tag(graph, tag, depth))
        )

    def _require_limits(self, graph: Graph, digest: str, depth: int) -> None:
        place = self.repository.place(digest)
        if depth > DEPTH_LIMIT:
            msg = f"{place}: more than {DEPTH_LIMIT} levels below {graph.root}"
            raise Unreadable(msg)
        graph.visits += 1
        if graph.visits > MANIFESTS_LIMIT:
            msg = f"{place}: more than {MANIFESTS_LIMIT} manifests below {graph.root}"
            raise Unreadable(msg)

    def _attach(self, graph: Graph, subject: Node, name: str, visit: Callable[[], None]) -> bool:
        """Visit an attachment; what is wrong with it is noted, and nothing of it stays in the graph."""
        before = len(graph.nodes)
        try:
            visit()
        except (CheckFailed, NotFound) as error:
            for digest in list(graph.nodes)[before:]:
                del graph.nodes[digest]
            graph.cosign_tags = {
                tag: digest for tag, digest in graph.cosign_tags.items() if digest in graph.nodes
            }
            graph.problems.append(Problem(subject.digest, name, as_check(error)))
            return False
        return True

    def _visit_referrer(self, graph: Graph, entry: Descriptor, depth: int) -> None:
        media_type = normalize(entry.media_type)
        if media_type not in KNOWN:
            msg = (
                f"{self.repository.place(entry.digest)}: a referrer of {printable(entry.media_type)!r}, "
                "whose references are not known"
            )
            raise Unreadable(msg)
        self._visit(graph, Node(entry.digest, media_type), depth + 1)

    def _visit_cosign_tag(self, graph: Graph, tag: str, depth: int) -> None:
        found = self.repository.resolve(tag)
        if found is None:
            msg = f"{self.repository.place(tag)}: listed, but not there"
            raise NotFound(msg)
        self._visit(graph, Node(*found), depth + 1)
        graph.cosign_tags[tag] = found[0]

    def _listed(self) -> Names:
        with self._lock:
            if self._tags is None:
                self._tags = self.repository.tags()
            return self._tags

    def _ask(self, digest: str, problems: list[Problem]) -> Iterator[Descriptor]:
        if self._has_api is None:
            # One asks first, so that a registry without the API is not asked by every thread.
            with self._probe:
                listings = [self._ask_api(digest)]
        else:
            listings = [self._ask_api(digest)]
        tag = fallback_tag(digest)
        if tag in self.tags:
            try:
                listings.append(self.repository.referrers_by_tag(tag))
            except CheckFailed as error:
                problems.append(Problem(digest, tag, error))
        for listing in listings:
            problems += [Problem(digest, digest, error) for error in listing.unreadable]
            yield from listing.entries

    def _ask_api(self, digest: str) -> Listing:
        if self._has_api is False:
            return Listing()
        listed = self.repository.referrers(digest)
        self._has_api = listed is not None
        return listed or Listing()


def require_kind(node: Node, manifest: Manifest) -> None:
    """Raise Unreadable if an index was named as something else, or the other way round."""
    if manifest.is_index != (node.media_type in INDEXES):
        msg = f"{manifest.place}: named as {node.media_type}, but is {manifest.media_type}"
        raise Unreadable(msg)


def unreadable(graph: Graph, wrong: Mapping[str, CheckFailed]) -> list[Problem]:
    """Attachments that are, or whose index names, one of the manifests that are ``wrong``."""
    return [
        Problem(subject.digest, name, wrong[digest])
        for subject, name, attached in (graph.attachments() if wrong else ())
        for digest in graph.structure(attached.digest) & wrong.keys()
    ]


def misattached(graph: Graph) -> list[Problem]:
    """Manifests, of those that were read, that a list calls referrers of what they do not refer to."""
    problems: list[Problem] = []
    for subject, name, attached in graph.attachments():
        manifest = attached.manifest
        if manifest is None or name != attached.digest:
            continue
        if manifest.subject is None or manifest.subject.digest != subject.digest:
            msg = f"{manifest.place}: listed as a referrer of {subject.digest}, which it does not refer to"
            problems.append(Problem(subject.digest, name, NotAttachment(msg)))
    return problems


def as_check(error: CheckFailed | NotFound) -> CheckFailed:
    """A part that is not there, as what is wrong with the whole."""
    return error if isinstance(error, CheckFailed) else Unreadable(str(error))
