"""One repository of a registry, over the OCI distribution API 1.1.

Whatever is read is checked: a manifest against the digest it was asked for, and against the digest
that the registry's own header claims. Whether a registry has the referrers API is found by asking
it, not by its headers or version.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote

import urllib3

from kilo.registry.errors import NotFound, RegistryDown, Rejected, Untrustworthy
from kilo.registry.manifest import ACCEPTED, OCI_INDEX, SIZE_LIMIT_BYTES, Descriptor, Manifest
from kilo.registry.reference import DIGEST_PATTERN, Reference, resolve
from kilo.registry.transport import Scope, Transport

_NEXT_PAGE = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_PAGE = 1000


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

    def catalog(self, prefix: Reference) -> list[str]:
        """List the repositories below ``prefix``, by their names after it."""
        repository = self.repository(prefix)
        scope = Scope("", "registry:catalog:*")
        found: list[str] = []
        for page in repository.pages(f"/v2/_catalog?n={_PAGE}", scope):
            found += cast("list[str]", page.get("repositories") or [])
        start = f"{repository.path}/"
        return sorted(name.removeprefix(start) for name in found if name.startswith(start))

    @property
    def requests_sent(self) -> int:
        """Requests sent to all of them so far."""
        return sum(transport.requests_sent for transport in self._transports.values())


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
            RegistryDown, AccessDenied: see :meth:`Transport.request`.
        """
        place = self.place(reference)
        answer = self.transport.request(
            "GET", self._manifest_path(reference), self.pull, headers={"Accept": ACCEPTED}
        )
        if answer.status == 404:
            return None
        self._require(answer, {200}, place)
        if len(answer.data) > SIZE_LIMIT_BYTES:
            msg = f"{place}: a manifest of {len(answer.data)} bytes; at most {SIZE_LIMIT_BYTES} are allowed"
            raise Untrustworthy(msg)
        by_digest = DIGEST_PATTERN.fullmatch(reference) is not None
        claimed = answer.headers.get("Docker-Content-Digest")
        expected = reference if by_digest else claimed
        algorithm = (
            expected.partition(":")[0] if expected and DIGEST_PATTERN.fullmatch(expected) else "sha256"
        )
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        manifest = Manifest.of(answer.data, media_type, place, algorithm)
        for source, digest in (("asked for", reference if by_digest else None), ("claimed", claimed)):
            if digest and digest != manifest.digest:
                msg = f"{place}: the registry sent {manifest.digest} where {digest} was {source}"
                raise Untrustworthy(msg)
        return manifest

    def resolve(self, reference: str) -> tuple[str, str] | None:
        """Ask for the digest and media type of a tag or digest without its bytes; None when there is none."""
        answer = self.transport.request(
            "HEAD", self._manifest_path(reference), self.pull, headers={"Accept": ACCEPTED}
        )
        if answer.status == 404:
            return None
        self._require(answer, {200}, self.place(reference))
        digest = answer.headers.get("Docker-Content-Digest", "")
        if DIGEST_PATTERN.fullmatch(digest):
            return digest, answer.headers.get("Content-Type", "").partition(";")[0]
        manifest = self.manifest(reference)
        return (manifest.digest, manifest.media_type) if manifest else None

    def put_manifest(self, manifest: Manifest, reference: str | None = None) -> bool:
        """Write ``manifest`` by its digest, or by the tag ``reference``.

        Returns:
            Whether the registry itself will list the manifest as a referrer of its subject.

        Raises:
            Rejected: the registry refused it: an immutable tag that points elsewhere, or a child
                that it does not hold.
        """
        answer = self.transport.request(
            "PUT",
            self._manifest_path(reference or manifest.digest),
            self.push,
            headers={"Content-Type": manifest.media_type},
            body=manifest.content,
        )
        self._require(answer, {201}, self.place(reference or manifest.digest))
        claimed = answer.headers.get("Docker-Content-Digest")
        if claimed and claimed != manifest.digest:
            msg = (
                f"{self.place(reference or manifest.digest)}: stored as {claimed}, sent as {manifest.digest}"
            )
            raise Untrustworthy(msg)
        return "OCI-Subject" in answer.headers

    def tags(self) -> list[str]:
        """List all tags; empty when the repository does not exist."""
        found: list[str] = []
        for page in self.pages(f"/v2/{self.path}/tags/list?n={_PAGE}", self.pull):
            found += cast("list[str]", page.get("tags") or [])
        return found

    def referrers(self, digest: str) -> list[Descriptor] | None:
        """List what refers to ``digest``, by the referrers API; None where the registry has none."""
        found: list[Descriptor] = []
        place = f"{self.name}: referrers of {digest}"
        for page in self.pages(f"/v2/{self.path}/referrers/{digest}", self.pull, media_type=OCI_INDEX):
            if not page:
                return None
            found += [Descriptor.parse(entry, place) for entry in page.get("manifests") or ()]
        return found

    def pages(
        self, location: str, scope: Scope, media_type: str = "application/json"
    ) -> Iterator[dict[str, Any]]:
        """Follow a paged list; one empty page when the path is not found."""
        seen = {location}
        while True:
            answer = self.transport.request("GET", location, scope, headers={"Accept": media_type})
            if answer.status == 404:
                yield {}
                return
            self._require(answer, {200}, f"{self.transport.host}{location}")
            try:
                page = json.loads(answer.data)
            except ValueError:
                page = None
            if not isinstance(page, dict):
                msg = f"{self.transport.host}{location}: the answer is no JSON object"
                raise Untrustworthy(msg)
            yield cast("dict[str, Any]", page)
            following = _NEXT_PAGE.search(answer.headers.get("Link", ""))
            if not following:
                return
            location = following[1]
            if location in seen:
                msg = f"{self.transport.host}{location}: the list's pages go in circles"
                raise Untrustworthy(msg)
            seen.add(location)

    def place(self, reference: str) -> str:
        """Name ``reference`` in this repository, for messages."""
        return f"{self.name}{'@' if DIGEST_PATTERN.fullmatch(reference) else ':'}{reference}"

    def _manifest_path(self, reference: str) -> str:
        return f"/v2/{self.path}/manifests/{quote(reference, safe=':')}"

    def _require(self, answer: urllib3.BaseHTTPResponse, statuses: set[int], place: str) -> None:
        require(answer, statuses, place)


def require(answer: urllib3.BaseHTTPResponse, statuses: set[int], place: str) -> None:
    """Raise unless the answer has one of ``statuses``.

    Raises:
        NotFound: 404.
        Rejected: another 4xx; the registry's own words are quoted.
        RegistryDown: anything else.
    """
    if answer.status in statuses:
        return
    msg = f"{place}: HTTP {answer.status}{_words(answer.data)}"
    if answer.status == 404:
        raise NotFound(msg)
    if 400 <= answer.status < 500:
        raise Rejected(msg)
    raise RegistryDown(msg)


def _words(body: bytes) -> str:
    try:
        errors = cast("list[Mapping[str, str]]", json.loads(body)["errors"])
        return ": " + "; ".join(
            f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
