"""Bringing a repository of the destination up to the source: the tags that match, and what has none.

A tag that fails does not stop the others, nor does an attachment that is left out stop its image; the
report names each. Nothing is deleted at the destination.
"""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kilo.errors import CheckFailed, KiloError
from kilo.registry.client import Registries, Repository
from kilo.registry.copier import BlobPool, Copied, GraphCopier, GraphLocks
from kilo.registry.errors import NotFound, unexpected
from kilo.registry.graph import DEPTH_LIMIT, Graph, Problem, RepositoryView, digest_of_tag
from kilo.registry.reference import Reference

Outcome = Literal["copied", "present", "failed", "quarantined", "deferred", "would copy"]
"""``deferred``: no tag names it and nothing signs it; a later push, of its tag or signature, brings it."""

_TAG_DELAYS_SECONDS = (0.1, 0.3, 1.0)
"""Between looks for a pushed tag: Distribution tells of a push before it writes its tag."""


log = logging.getLogger(__name__)


class Policy(Protocol):
    """What an image must satisfy before it is copied."""

    def check(self, view: RepositoryView, graph: Graph) -> list[Problem]:
        """Raise CheckFailed for an image that must not be copied; name attachments that must not be."""
        ...


@dataclass(frozen=True, slots=True)
class TagResult:
    """What became of one tag or digest."""

    repository: str
    name: str
    digest: str
    outcome: Outcome
    copied: Copied = field(default_factory=Copied)
    error: KiloError | None = None
    left_out: tuple[KiloError, ...] = ()
    """Attachments that could not be copied, and why; the image itself is whole."""

    @property
    def first_error(self) -> KiloError | None:
        """What kept this from being mirrored whole."""
        return self.error or next(iter(self.left_out), None)

    def document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "repository": self.repository,
            "name": self.name,
            "digest": self.digest,
            "outcome": self.outcome,
            "manifests": self.copied.manifests,
            "blobs": self.copied.blobs,
            "bytes": self.copied.sent_bytes,
            "error": str(self.error) if self.error else None,
            "left_out": [str(error) for error in self.left_out],
        }


class Synchronizer:
    """Copies tags and digests between registries, several at a time.

    ``jobs`` bounds the images under way, ``blob_jobs`` the blobs; memory is bounded by both, not by
    the size of anything. With a ``policy``, a tag whose image is not signed as required is
    quarantined: reported and not copied. Without ``move_tags`` a tag that means something else at the
    destination is left as it is and reported. Use as a context manager.
    """

    def __init__(
        self,
        *,
        jobs: int = 8,
        blob_jobs: int = 8,
        registries: Registries | None = None,
        policy: Policy | None = None,
        move_tags: bool = True,
    ) -> None:
        self._policy = policy
        self._move_tags = move_tags
        self.registries = registries or Registries(connections=max(jobs, blob_jobs) + 2)
        self._jobs = jobs
        self._blobs = BlobPool(blob_jobs)
        self._locks = GraphLocks()

    def __enter__(self) -> Synchronizer:
        return self

    def __exit__(self, *_: object) -> None:
        self._blobs.close()

    def sync(
        self,
        source: Reference,
        destination: Reference,
        *,
        pattern: str = "*",
        dry_run: bool = False,
        deep: bool = False,
        progress: Callable[[TagResult], None] = lambda _: None,
    ) -> list[TagResult]:
        """Bring ``destination`` up to ``source``: its one tag or digest, or all tags that match ``pattern``.

        Raises:
            NotFound: the source repository or its tag does not exist.
            RegistryDown, AccessDenied: the list of tags can't be read.
        """
        run = self._run(source, destination)
        if source.tag or source.digest:
            result = run.copy(
                source.digest or source.tag or "",
                tag=destination.tag or source.tag,
                dry_run=dry_run,
                deep=deep,
            )
            if isinstance(result.error, NotFound) and not result.digest:
                raise result.error
            progress(result)
            return [result]
        if not run.source.tags and not run.source.unreadable_tags:
            msg = f"{source}: no such repository, or no tag in it"
            raise NotFound(msg)
        ordinary = sorted(tag for tag in run.source.tags if digest_of_tag(tag) is None)
        wanted = [tag for tag in ordinary if fnmatch.fnmatchcase(tag, pattern)]
        results = self._all(
            wanted, lambda tag: run.copy(tag, tag=tag, dry_run=dry_run, deep=deep), progress=progress
        )
        if pattern == "*":
            orphans = sorted(tag for tag in run.source.tags if run.is_orphan(tag))
            results += self._all(
                orphans, lambda tag: run.copy_orphan(tag, dry_run=dry_run, deep=deep), progress=progress
            )
        for error in run.source.unreadable_tags:
            results.append(TagResult(source.name, "?", "", "failed", error=error))
            progress(results[-1])
        return results

    def _run(self, source: Reference, destination: Reference) -> _Run:
        return _Run(
            self.registries.repository(source),
            self.registries.repository(destination),
            self._blobs,
            self._locks,
            self._policy,
            move_tags=self._move_tags,
        )

    def sync_repository(
        self,
        source: Reference,
        destination: Reference,
        *,
        pattern: str = "*",
        dry_run: bool = False,
        deep: bool = False,
        may_be_missing: bool = False,
        progress: Callable[[TagResult], None] = lambda _: None,
    ) -> list[TagResult]:
        """Bring one of several repositories up to the source; a failure is in the results, none is raised.

        With ``may_be_missing``, a repository that has nothing yet is no failure.
        """
        try:
            return self.sync(
                source, destination, pattern=pattern, dry_run=dry_run, deep=deep, progress=progress
            )
        except NotFound as error:
            failure: KiloError = error
            if may_be_missing:
                return []
        except KiloError as error:
            failure = error
        except Exception as error:
            log.exception("%s", source.name)
            failure = unexpected(error)
        return [TagResult(source.name, "*", "", "failed", error=failure)]

    def sync_push(self, source: Reference, destination: Reference, digest: str, tag: str | None) -> TagResult:
        """Mirror one push: its tag, or, where it has none, the digest with all that it refers to.

        A failure is in the result, none is raised.
        """
        run = self._run(source, destination)
        if tag is None:
            return run.copy_untagged(digest)
        for delay in _TAG_DELAYS_SECONDS:
            result = run.copy(tag, tag=tag)
            if result.digest or not isinstance(result.error, NotFound):
                return result
            time.sleep(delay)
        return run.copy(tag, tag=tag)

    def _all(
        self,
        tags: Iterable[str],
        copy: Callable[[str], TagResult],
        *,
        progress: Callable[[TagResult], None],
    ) -> list[TagResult]:
        results: list[TagResult] = []
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="image") as executor:
            for result in executor.map(copy, tags):
                progress(result)
                results.append(result)
        return results


class _Run:
    """One source repository and its destination, with what was learnt of both so far."""

    def __init__(
        self,
        source: Repository,
        destination: Repository,
        blobs: BlobPool,
        locks: GraphLocks,
        policy: Policy | None,
        *,
        move_tags: bool,
    ) -> None:
        self._locks = locks
        self._policy = policy
        self.source = RepositoryView(source)
        self.destination = RepositoryView(destination)
        self._copier = GraphCopier(self.source, self.destination, blobs, move_tags=move_tags)
        self._seen: set[str] = set()

    def is_orphan(self, tag: str) -> bool:
        """Whether a cosign or fallback tag belongs to no image that was copied."""
        subject = digest_of_tag(tag)
        return subject is not None and subject not in self._seen

    def copy(
        self,
        name: str,
        *,
        tag: str | None,
        dry_run: bool = False,
        deep: bool = False,
        unsigned: Literal["quarantined", "deferred"] = "quarantined",
    ) -> TagResult:
        """Copy one tag or digest; a failure becomes a result, as does an image that the policy refuses."""
        repository, digest = self.source.repository, ""
        try:
            digest, media_type = _resolve(repository, name)
            graph = self.source.graph(digest, media_type)
            self._seen.update(graph.nodes)
            if self._policy is not None:
                try:
                    graph = graph.leave_out(self._policy.check(self.source, graph))
                except CheckFailed as error:
                    refusal = error if unsigned == "quarantined" else None
                    return TagResult(repository.name, name, digest, unsigned, error=refusal)
            copied = Copied()
            with self._locks.held(self.destination.repository.name, graph.nodes):
                there = self._destination_digest(tag)
                if dry_run:
                    lacking, graph = self._copier.lacks(graph, tag=tag, destination_digest=there)
                    outcome: Outcome = "would copy" if lacking else "present"
                else:
                    copied, graph = self._copier.copy(graph, tag=tag, destination_digest=there, deep=deep)
                    outcome = "copied" if copied else "present"
        except KiloError as error:
            return TagResult(repository.name, name, digest, "failed", error=error)
        except Exception as error:
            # Nothing that one image holds may stop the others; the trace is for whoever mends this.
            log.exception("%s", repository.place(name))
            return TagResult(repository.name, name, digest, "failed", error=unexpected(error))
        left_out = tuple(problem.error for problem in graph.problems)
        return TagResult(repository.name, name, digest, outcome, copied, left_out=left_out)

    def copy_untagged(self, digest: str) -> TagResult:
        """Copy a manifest that no tag names. A referrer is copied as part of what it refers to."""
        repository = self.source.repository
        try:
            top = self.source.read(digest)
            for _ in range(DEPTH_LIMIT):
                subject = repository.manifest(top.subject.digest) if top.subject is not None else None
                if subject is None:
                    break
                top = subject
        except KiloError as error:
            return TagResult(repository.name, digest, digest, "failed", error=error)
        return self.copy(top.digest, tag=None, unsigned="deferred")

    def copy_orphan(self, tag: str, *, dry_run: bool, deep: bool) -> TagResult:
        """Copy what a cosign or fallback tag belongs to, or the tag alone where that is gone."""
        subject = digest_of_tag(tag) or ""
        try:
            held = self.source.repository.has_manifest(subject)
        except KiloError as error:
            return TagResult(self.source.repository.name, tag, subject, "failed", error=error)
        if held:
            return self.copy(subject, tag=None, dry_run=dry_run, deep=deep)
        return self.copy(tag, tag=tag, dry_run=dry_run, deep=deep)

    def _destination_digest(self, tag: str | None) -> str | None:
        if tag is None or tag not in self.destination.tags:
            return None
        found = self.destination.repository.resolve(tag)
        return found[0] if found else None


def _resolve(repository: Repository, name: str) -> tuple[str, str]:
    found = repository.resolve(name)
    if found is None:
        msg = f"{repository.place(name)}: no such tag or digest"
        raise NotFound(msg)
    return found
