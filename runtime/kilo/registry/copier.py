"""Copying a graph: blobs, then manifests from the leaves up, then referrers, and the tag last.

What the destination holds is not sent again, and a blob that several images share is sent once
however many threads want it. Where the destination has no referrers API, the copier keeps the
fallback tags there, as a pushing client must.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from kilo.errors import CheckFailed
from kilo.registry.blobs import CHUNK_BYTES, copy_blob, has_blob
from kilo.registry.errors import NotFound, Rejected, Unreadable, Untrustworthy
from kilo.registry.graph import (
    Graph,
    Node,
    Problem,
    RepositoryView,
    as_check,
    digest_of_tag,
    fallback_tag,
    misattached,
    referrers_index,
    unreadable,
)
from kilo.registry.manifest import Descriptor, Manifest

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")

_LIST_ATTEMPTS = 6
"""Writes of one list of referrers before it is given up to whoever else writes it."""

_KNOWN_BLOBS = 20_000
_KNOWN_SECONDS = 600.0
"""How many blobs a long-lived process remembers to have brought over, and for how long it goes by that."""

_REQUESTS_AT_ONCE = 8
"""Of one image, for its manifests; each registry's connections are bounded by its transport."""


@dataclass(slots=True)
class Copied:
    """What a copy had to send."""

    manifests: int = 0
    blobs: int = 0
    sent_bytes: int = 0
    tags: int = 0

    def __bool__(self) -> bool:
        return bool(self.manifests or self.blobs or self.tags)

    def add(self, other: Copied) -> None:
        """Add another copy's counts to these."""
        self.manifests += other.manifests
        self.blobs += other.blobs
        self.sent_bytes += other.sent_bytes
        self.tags += other.tags


class BlobPool:
    """Copies blobs in parallel, each destination's blob once. One for all repositories of a run."""

    def __init__(self, workers: int = 4, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="blob")
        self._chunk_bytes = chunk_bytes
        self._lock = threading.Lock()
        self._copies: OrderedDict[tuple[str, str, int], _Copy] = OrderedDict()
        self._held_by: OrderedDict[tuple[str, str, int], str] = OrderedDict()

    def copy(
        self, source: RepositoryView, destination: RepositoryView, blob: Descriptor
    ) -> tuple[Future[int], bool]:
        """Have the blob at the destination.

        Returns:
            A future of the bytes that were sent, and whether this call is the one that sends them.
        """
        # One manifest's wrong size is no failure of another's.
        key = (destination.repository.name, blob.digest, blob.size)
        with self._lock:
            known = self._copies.get(key)
            if known is not None and known.holds():
                return known.sent, False
            sent = self._executor.submit(self._ensure, source, destination, blob)
            self._copies[key] = _Copy(sent, time.monotonic())
            _forget_oldest(self._copies, lambda copy: copy.sent.done())
            return sent, True

    def close(self) -> None:
        """Wait for what is under way and start nothing more."""
        self._executor.shutdown(cancel_futures=True)

    def _ensure(self, source: RepositoryView, destination: RepositoryView, blob: Descriptor) -> int:
        target = destination.repository
        sent = 0
        shelf = (target.transport.base_url, blob.digest, blob.size)
        if not has_blob(target, blob.digest, blob.size):
            holder = self._held_by.get(shelf)
            mount_from = holder if holder != target.path else None
            sent = copy_blob(
                source.repository, target, blob, mount_from=mount_from, chunk_bytes=self._chunk_bytes
            )
        with self._lock:
            self._held_by[shelf] = target.path
            _forget_oldest(self._held_by, lambda _: True)
        return sent


@dataclass(frozen=True, slots=True)
class _Copy:
    """A blob's copy, and when it was asked for."""

    sent: Future[int]
    at: float

    def holds(self) -> bool:
        """Whether it can be gone by: a blob may be deleted at the destination, so not for ever."""
        if not self.sent.done():
            return True
        return self.sent.exception() is None and time.monotonic() - self.at < _KNOWN_SECONDS


def _forget_oldest(known: OrderedDict[Key, Item], may_go: Callable[[Item], bool]) -> None:
    while len(known) > _KNOWN_BLOBS:
        key, oldest = next(iter(known.items()))
        if not may_go(oldest):
            return
        del known[key]


def _of_attachments(graph: Graph, wrong: Mapping[str, CheckFailed | NotFound]) -> list[Problem]:
    """What is wrong with attachments, by the manifests' digests; what is wrong with the image is raised."""
    image = graph.structure()
    for digest, error in wrong.items():
        if digest in image:
            raise error
    return unreadable(graph, {digest: as_check(error) for digest, error in wrong.items()})


class GraphLocks:
    """Lets one copy at a time work on a manifest of a destination, for all copies of a process.

    Events of one push come together, and their graphs share manifests. Two that extend the same fallback tag
    would lose what the other listed, and a registry on a file system writes its links in place: one that is
    written again is empty for a moment, and an index that names it is refused then.
    """

    def __init__(self) -> None:
        # So many that two graphs seldom wait for each other without need, and no more with time.
        self._locks = [threading.Lock() for _ in range(4096)]

    @contextmanager
    def held(self, destination: str, digests: Iterable[str]) -> Generator[None]:
        """Hold the locks of these manifests of a destination; always in one order, so that none deadlock."""
        places = {hash((destination, digest)) % len(self._locks) for digest in digests}
        with ExitStack() as stack:
            for place in sorted(places):
                stack.enter_context(self._locks[place])
            yield


class GraphCopier:
    """Copies graphs from one repository to another. Thread-safe where :class:`GraphLocks` are held."""

    def __init__(
        self,
        source: RepositoryView,
        destination: RepositoryView,
        blobs: BlobPool,
        *,
        move_tags: bool = True,
    ) -> None:
        self.source = source
        self.destination = destination
        self._blobs = blobs
        self._move_tags = move_tags
        self._held: set[str] = set()

    def copy(
        self,
        graph: Graph,
        *,
        tag: str | None = None,
        destination_digest: str | None = None,
        deep: bool = False,
    ) -> tuple[Copied, Graph]:
        """Copy what the destination lacks of ``graph`` and point ``tag`` at its root.

        ``destination_digest`` is what the tag already points at there. Where that is the root, its
        children are taken to be there too, since a tag moves last, and only referrers are looked
        at; with ``deep`` nothing is taken for granted, down to the blobs.

        Returns:
            What was sent, and the graph as it was copied: attachments that can't be copied are left
            out of it, and are its problems.

        Raises:
            NotFound: the source lacks a part of its own graph.
            Untrustworthy, Unreadable: the source sent something else than its digest says, or
                something that can't be read.
            Rejected: the destination refused a part, or the tag is there and may not move.
            RegistryDown, AccessDenied: a side can't be used.
        """
        self._require_movable(tag, graph.root, destination_digest)
        copied = Copied()
        doubtful, missing = self._missing(graph, destination_digest, deep=deep)
        wanted = doubtful if deep else list(missing.values())
        graph = graph.leave_out(self._unfit(graph, wanted))
        fit = [node for node in wanted if node.digest in graph.nodes]
        graph = graph.leave_out(self._copy_blobs(graph, fit, copied))
        for generation in graph.generations():
            due = [
                node
                for node in generation
                if node.digest in missing
                and (node.digest != graph.root or tag is None or node.referrers or node.tags)
            ]
            _at_once(lambda node: self.destination.repository.put_manifest(self._manifest(node)), due)
            copied.manifests += len(due)
        subjects = [node for node in graph.nodes.values() if node.referrers]
        copied.tags += sum(_at_once(lambda node: self._list_referrers(graph, node), subjects))
        for name, digest in graph.cosign_tags.items():
            self._point(name, graph.nodes[digest], copied)
        if tag is not None and destination_digest != graph.root:
            self.destination.repository.put_manifest(self._manifest(graph.nodes[graph.root]), tag)
            copied.tags += 1
        self._held.update(graph.nodes)
        return copied, graph

    def lacks(self, graph: Graph, *, tag: str | None, destination_digest: str | None) -> tuple[bool, Graph]:
        """Whether :meth:`copy` would have to write anything, and the graph as that would copy it.

        Raises as it does.
        """
        self._require_movable(tag, graph.root, destination_digest)
        _, missing = self._missing(graph, destination_digest, deep=False)
        graph = graph.leave_out(self._unfit(graph, list(missing.values())))
        lacking = (
            (tag is not None and destination_digest != graph.root)
            or any(digest in graph.nodes for digest in missing)
            or any(self._unlisted(node) for node in graph.nodes.values())
            or any(not self._points(name, digest) for name, digest in graph.cosign_tags.items())
        )
        return lacking, graph

    def _require_movable(self, tag: str | None, root: str, destination_digest: str | None) -> None:
        if tag is None or self._move_tags or destination_digest in {None, root} or digest_of_tag(tag):
            return
        msg = (
            f"{self.destination.repository.place(tag)}: is {destination_digest} there and {root} at the "
            "source; the mirror moves no tag"
        )
        raise Rejected(msg)

    def _missing(
        self, graph: Graph, destination_digest: str | None, *, deep: bool
    ) -> tuple[list[Node], dict[str, Node]]:
        """Manifests that the destination was to be asked for, and those of them that it lacks."""
        trusted = self._trusted(graph) if graph.root == destination_digest and not deep else frozenset[str]()
        doubtful = [node for node in graph.nodes.values() if node.digest not in trusted]
        held = _at_once(lambda node: self._destination_has(node.digest), doubtful)
        return doubtful, {node.digest: node for node, there in zip(doubtful, held, strict=True) if not there}

    def _unfit(self, graph: Graph, nodes: Sequence[Node]) -> list[Problem]:
        """Read the nodes' manifests; name attachments that can't be copied, raise for the image's own."""

        def read(node: Node) -> CheckFailed | NotFound | None:
            try:
                self.source.read_node(node)
            except (CheckFailed, NotFound) as error:
                return error
            return None

        errors = zip(nodes, _at_once(read, nodes), strict=True)
        wrong = {node.digest: error for node, error in errors if error is not None}
        return [*_of_attachments(graph, wrong), *misattached(graph)]

    def _trusted(self, graph: Graph) -> frozenset[str]:
        """What the destination need not be asked for one by one, given that its tag points at the root."""
        found: set[str] = set()
        waiting = [graph.root]
        while waiting:
            node = graph.nodes[waiting.pop()]
            found.add(node.digest)
            waiting += [child.digest for child in node.children if child.digest in graph.nodes]
            if node.referrers:
                listed = {entry.digest for entry in self.destination.referrers(node.digest)}
                waiting += [entry.digest for entry in node.referrers if entry.digest in listed]
        return frozenset(found)

    def _destination_has(self, digest: str) -> bool:
        if digest not in self._held and self.destination.repository.has_manifest(digest):
            self._held.add(digest)
        return digest in self._held

    def _copy_blobs(self, graph: Graph, nodes: Sequence[Node], copied: Copied) -> list[Problem]:
        """Copy the nodes' blobs; name attachments whose own can't be copied, raise for the image's own."""
        manifests = _at_once(self._manifest, nodes)
        # By size too: an attachment may name the image's own blob with a wrong one.
        wanted = {(blob.digest, blob.size): blob for manifest in manifests for blob in manifest.blobs}
        copies = {key: self._blobs.copy(self.source, self.destination, blob) for key, blob in wanted.items()}
        wait([copy for copy, _ in copies.values()])
        failed: dict[tuple[str, int], CheckFailed | NotFound] = {}
        for key, (copy, own) in copies.items():
            try:
                sent = copy.result()
            except (Untrustworthy, Unreadable, NotFound) as error:
                failed[key] = error
                continue
            if own and sent:
                copied.blobs += 1
                copied.sent_bytes += sent
        errors = (
            (
                node,
                next(
                    (failed[key] for blob in manifest.blobs if (key := (blob.digest, blob.size)) in failed),
                    None,
                ),
            )
            for node, manifest in zip(nodes, manifests, strict=True)
        )
        return _of_attachments(graph, {node.digest: error for node, error in errors if error is not None})

    def _list_referrers(self, graph: Graph, node: Node) -> bool:
        """See to it that the destination lists the node's referrers; says whether a tag moved for it."""
        moved = False
        for _ in range(_LIST_ATTEMPTS):
            if not self._unlisted(node):
                return moved
            # What was listed before the push is out of date.
            self.destination.forget_referrers(node.digest)
            if self.destination.has_referrers_api:
                return False
            fresh, listed = self._unlisted(node), self.destination.referrers(node.digest)
            if not fresh:
                return moved
            # From the manifests themselves: a source's list may leave artifact types out.
            added = [self._manifest(graph.nodes[entry.digest]).descriptor() for entry in fresh]
            self._attach(referrers_index((*listed, *added)), fallback_tag(node.digest))
            self.destination.forget_referrers(node.digest)
            # Read back the next time round: without conditional writes, whoever wrote last wins, and the
            # sweep and the worker write at once.
            moved = True
        msg = f"{self.destination.repository.place(fallback_tag(node.digest))}: others keep writing this list"
        raise Rejected(msg)

    def _unlisted(self, node: Node) -> list[Descriptor]:
        """The node's referrers that the destination does not list."""
        if not node.referrers:
            return []
        listed = {entry.digest for entry in self.destination.referrers(node.digest)}
        return [entry for entry in node.referrers if entry.digest not in listed]

    def _point(self, tag: str, node: Node, copied: Copied) -> None:
        if not self._points(tag, node.digest):
            self._attach(self._manifest(node), tag)
            copied.tags += 1

    def _points(self, tag: str, digest: str) -> bool:
        if tag not in self.destination.tags:
            return False
        found = self.destination.repository.resolve(tag)
        return found is not None and found[0] == digest

    def _attach(self, manifest: Manifest, tag: str) -> None:
        """Point a tag that is made of a digest, and so must move as more is attached to that digest."""
        try:
            self.destination.repository.put_manifest(manifest, tag)
        except Rejected as error:
            if tag not in self.destination.tags:
                raise
            msg = (
                f"{error}; without the referrers API a tag must move when more is attached to an image, and "
                "this registry's tags can't: make its tags mutable for the mirror alone"
            )
            raise Rejected(msg) from error
        self.destination.add_tag(tag)

    def _manifest(self, node: Node) -> Manifest:
        return self.source.read_node(node)


def _at_once(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call ``function`` with each item, several at a time: a registry's answer is mostly waiting."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_REQUESTS_AT_ONCE, len(items)), thread_name_prefix="manifest") as executor:
        return list(executor.map(function, items))
