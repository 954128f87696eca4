"""One repository of a registry, over the OCI distribution API 1.1.

Whatever is read is checked: a manifest against the digest it was asked for, and against the digest
that the registry's own header claims. Whether a registry has the referrers API is found by asking
it, not by its headers or version.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from kilo.errors import KiloError
from kilo.registry.errors import NotFound, RegistryDown, Rejected, Unreadable, Untrustworthy
from kilo.registry.headers import next_page
from kilo.registry.manifest import SIZE_LIMIT_BYTES, Descriptor, Manifest, digest_of
from kilo.registry.media import ACCEPTED, OCI_INDEX, known_of_header, normalize
from kilo.registry.parsing import list_of, parse_object, printable, text_of
from kilo.registry.reference import DIGEST_PATTERN, REPOSITORY_PATTERN, TAG_PATTERN, Reference, resolve
from kilo.registry.transport import Answer, Scope, Transport

_PAGE = 1000
_PAGES_LIMIT = 10_000
_LIST_LIMIT_BYTES = 32 * 1024 * 1024
"""Of one page; Distribution answers with all tags at once, however few are asked for."""

_NO_REFERRERS_API = frozenset({400, 404, 405, 406, 501})
"""What registries answer to a path that they do not know; only 404 is in the specification."""


@dataclass(frozen=True, slots=True)
class Names:
    """The tags of a repository or the repositories of a registry, and what their list had besides."""

    names: frozenset[str]
    unreadable: tuple[Unreadable, ...] = ()


class Registries:
    """The registries that a command speaks to; one :class:`Transport` each. Thread-safe."""

    def __init__(self, *, connections: int = 8, patience_seconds: float | None = None) -> None:
        self._options: dict[str, Any] = {"connections": connections}
        if patience_seconds is not None:
            self._options["patience_seconds"] = patience_seconds
        self._transports: dict[tuple[str, str], Transport] = {}
        self._lock = threading.Lock()

    def repository(self, reference: Reference) -> Repository:
        """Open the repository that ``reference`` names; nothing is sent yet."""
        endpoint = resolve(reference.name)
        with self._lock:
            key = (reference.host, endpoint.base_url)
            if key not in self._transports:
                self._transports[key] = Transport(reference.host, endpoint.base_url, **self._options)
            return Repository(self._transports[key], endpoint.repository, reference.name)

    def catalog(self, prefix: Reference) -> Names:
        """List the repositories below ``prefix``, by their names after it.

        Raises:
            Unreadable: the list is malformed. An entry that is no repository's name is in the result.
        """
        repository = self.repository(prefix)
        scope = Scope("", "registry:catalog:*")
        place = f"{prefix.host}: list of repositories"
        pages = repository.pages(f"/v2/_catalog?n={_PAGE}", scope, place)
        listed = _names(pages, "repositories", REPOSITORY_PATTERN, place)
        start = f"{repository.path}/"
        below = frozenset(name.removeprefix(start) for name in listed.names if name.startswith(start))
        return Names(below, listed.unreadable)

    @property
    def requests_sent(self) -> int:
        """Requests sent to all of them so far."""
        return sum(transport.requests_sent for transport in self._transports.values())


@dataclass(slots=True)
class Listing:
    """Referrers that a list names, and what was wrong with entries that are left out."""

    entries: list[Descriptor] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, index: Mapping[str, Any], place: str) -> None:
        """Take in the entries of an index. Raises Unreadable if it has no array of them."""
        for entry in list_of(index, "manifests", place):
            try:
                self.entries.append(Descriptor.parse(entry, place))
            except Unreadable as error:
                self.unreadable.append(error)


@dataclass(frozen=True, slots=True)
class _Content:
    content: bytes
    media_type: str
    algorithm: str


class Repository:
    """A repository: its manifests, tags and referrers. Blobs are :mod:`kilo.registry.blobs`'s."""

    def __init__(self, transport: Transport, path: str, name: str) -> None:
        self.transport = transport
        self.path = path
        self.name = name
        self.pull = Scope(path, "pull")
        self.push = Scope(path, "pull,push")

    def manifest(self, reference: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when there is none.

        Raises:
            Untrustworthy: its bytes are not what the digest or the registry's header says.
            Unreadable: it is malformed, too large, or of a type whose references are not known.
            RegistryDown, AccessDenied: see :meth:`Transport.request`.
        """
        found = self._read_manifest(reference)
        if found is None:
            return None
        return Manifest.parse(found.content, found.media_type, self.place(reference), found.algorithm)

    def _read_manifest(self, reference: str) -> _Content | None:
        """A manifest's bytes, checked against their digest and not yet parsed."""
        place = self.place(reference)
        answer = self.transport.request(
            "GET",
            self._manifest_path(reference),
            self.pull,
            headers={"Accept": ACCEPTED},
            limit_bytes=SIZE_LIMIT_BYTES,
        )
        if answer.status == 404:
            return None
        require(answer, {200}, place)
        asked = reference if DIGEST_PATTERN.fullmatch(reference) else None
        claimed = answer.headers.get("Docker-Content-Digest")
        algorithm = "sha512" if (asked or claimed or "").startswith("sha512:") else "sha256"
        found = digest_of(answer.data, algorithm)
        for source, digest in (("asked for", asked), ("claimed", claimed)):
            if digest and digest != found:
                msg = f"{place}: the registry sent {found} where {printable(digest)} was {source}"
                raise Untrustworthy(msg)
        return _Content(answer.data, answer.headers.get("Content-Type", ""), algorithm)

    def resolve(self, reference: str) -> tuple[str, str] | None:
        """Ask for the digest and media type of a tag or digest without its bytes; None when there is none.

        Raises as :meth:`manifest` does.
        """
        answer = self.transport.request(
            "HEAD", self._manifest_path(reference), self.pull, headers={"Accept": ACCEPTED}
        )
        if answer.status == 404:
            return None
        require(answer, {200}, self.place(reference))
        digest = answer.headers.get("Docker-Content-Digest", "")
        media_type = known_of_header(answer.headers.get("Content-Type", ""))
        if media_type and DIGEST_PATTERN.fullmatch(digest):
            return digest, media_type
        manifest = self.manifest(reference)
        return (manifest.digest, manifest.media_type) if manifest else None

    def has_manifest(self, digest: str) -> bool:
        """Whether the repository holds the manifest, of whatever type. Raises as :meth:`resolve` does."""
        answer = self.transport.request(
            "HEAD", self._manifest_path(digest), self.pull, headers={"Accept": ACCEPTED}
        )
        if answer.status == 404:
            return False
        require(answer, {200}, self.place(digest))
        return True

    def put_manifest(self, manifest: Manifest, reference: str | None = None) -> bool:
        """Write ``manifest`` by its digest, or by the tag ``reference``.

        Returns:
            Whether the registry itself will list the manifest as a referrer of its subject.

        Raises:
            Rejected: the registry refused it: an immutable tag that points elsewhere, or a child
                that it does not hold.
        """
        place = self.place(reference or manifest.digest)
        answer = self.transport.request(
            "PUT",
            self._manifest_path(reference or manifest.digest),
            self.push,
            headers={"Content-Type": manifest.media_type},
            body=manifest.content,
        )
        require(answer, {201}, place)
        claimed = answer.headers.get("Docker-Content-Digest")
        if claimed and claimed != manifest.digest:
            msg = f"{place}: stored as {printable(claimed)}, sent as {manifest.digest}"
            raise Untrustworthy(msg)
        return "OCI-Subject" in answer.headers

    def tags(self) -> Names:
        """List all tags; none when the repository does not exist.

        Raises:
            Unreadable: the list is malformed. An entry that is no tag is in the result.
        """
        place = f"{self.name}: list of tags"
        pages = self.pages(f"/v2/{self.path}/tags/list?n={_PAGE}", self.pull, place)
        return _names(pages, "tags", TAG_PATTERN, place)

    def referrers(self, digest: str) -> Listing | None:
        """List what refers to ``digest``, by the referrers API; None where the registry has none."""
        place = f"{self.name}: referrers of {digest}"
        found = Listing()
        location = f"/v2/{self.path}/referrers/{digest}"
        for page in self.pages(location, self.pull, place, OCI_INDEX, absent=_NO_REFERRERS_API):
            if not page:
                return None
            found.add(page, place)
        return found

    def referrers_by_tag(self, tag: str) -> Listing:
        """List what refers to a digest, by its fallback tag; nothing where there is no such tag.

        Raises:
            Unreadable: the tag's manifest is no list of referrers.
        """
        listing = Listing()
        found = self._read_manifest(tag)
        if found is not None:
            place = self.place(tag)
            document = parse_object(found.content, place)
            if normalize(text_of(document, "mediaType", place) or found.media_type) != OCI_INDEX:
                msg = f"{place}: no {OCI_INDEX}, and so no list of referrers"
                raise Unreadable(msg)
            listing.add(document, place)
        return listing

    def pages(
        self,
        location: str,
        scope: Scope,
        place: str,
        media_type: str = "application/json",
        *,
        absent: frozenset[int] = frozenset({404}),
    ) -> Iterator[dict[str, Any]]:
        """Follow a paged list; one empty page when the first is answered with a status of ``absent``.

        Raises:
            Unreadable: a page is no JSON object, or the list has no end.
        """
        seen: set[str] = set()
        following: str | None = location
        while following:
            answer = self.transport.request(
                "GET", following, scope, headers={"Accept": media_type}, limit_bytes=_LIST_LIMIT_BYTES
            )
            if answer.status in absent and not seen:
                yield {}
                return
            require(answer, {200}, place)
            yield parse_object(answer.data, place)
            seen.add(following)
            following = next_page(answer.headers.get("Link"), self.transport.url(following))
            if following in seen or len(seen) >= _PAGES_LIMIT:
                wrong = "go in circles" if following in seen else f"are more than {_PAGES_LIMIT}"
                msg = f"{place}: the list's pages {wrong}"
                raise Unreadable(msg)

    def place(self, reference: str) -> str:
        """Name ``reference`` in this repository, for messages."""
        return f"{self.name}{'@' if DIGEST_PATTERN.fullmatch(reference) else ':'}{reference}"

    def _manifest_path(self, reference: str) -> str:
        return f"/v2/{self.path}/manifests/{quote(reference, safe=':')}"


def _names(pages: Iterator[dict[str, Any]], member: str, pattern: re.Pattern[str], place: str) -> Names:
    names: set[str] = set()
    unreadable: list[Unreadable] = []
    for page in pages:
        for name in list_of(page, member, place):
            if isinstance(name, str) and pattern.fullmatch(name):
                names.add(name)
            else:
                unreadable.append(Unreadable(f"{place}: {printable(repr(name))} is no name of such"))
    return Names(frozenset(names), tuple(unreadable))


def require(answer: Answer, statuses: set[int], place: str) -> None:
    """Raise what :func:`refusal` makes of the answer, unless it has one of ``statuses``."""
    if answer.status not in statuses:
        raise refusal(answer, place)


def refusal(answer: Answer, place: str) -> KiloError:
    """An answer as an error that quotes the registry: NotFound, Rejected for another 4xx, or RegistryDown."""
    msg = f"{place}: HTTP {answer.status}{_error_message(answer.data)}"
    if answer.status == 404:
        return NotFound(msg)
    return Rejected(msg) if 400 <= answer.status < 500 else RegistryDown(msg)


def _error_message(body: bytes) -> str:
    try:
        errors = list_of(parse_object(body, "error"), "errors", "error")
    except Unreadable:
        return ""
    said = [
        " ".join(str(error[name]) for name in ("code", "message") if error.get(name))
        for error in errors
        if isinstance(error, dict)
    ]
    return f": {printable('; '.join(said))}" if said else ""
