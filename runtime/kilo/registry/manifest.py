"""Manifests and descriptors, as far as a copy needs to understand them.

Formats: OCI image index, manifest and descriptor 1.1
(https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md) and Docker's schema 2. The bytes
are kept as they came: a manifest's digest is of its bytes, so nothing is ever written back from a
parsed form.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, cast

from kilo.registry.errors import Untrustworthy
from kilo.registry.reference import DIGEST_PATTERN

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
ACCEPTED = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
"""Registries refuse manifests above 4 MiB, so one that is larger is no manifest."""

_NOT_DISTRIBUTABLE = ("nondistributable", "vnd.docker.image.rootfs.foreign")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of something it names."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    annotations: dict[str, str] = field(default_factory=dict, hash=False, compare=False)
    platform: dict[str, str] = field(default_factory=dict, hash=False, compare=False)

    @classmethod
    def parse(cls, document: object, place: str) -> Self:
        """Read a descriptor's JSON form.

        Raises:
            Untrustworthy: a required member is missing or malformed.
        """
        members = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        digest, size = members.get("digest"), members.get("size")
        if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest):
            msg = f"{place}: descriptor with the digest {digest!r}"
            raise Untrustworthy(msg)
        if not isinstance(size, int) or size < 0:
            msg = f"{place}: descriptor of {digest} with the size {size!r}"
            raise Untrustworthy(msg)
        return cls(
            str(members.get("mediaType", "")),
            digest,
            size,
            members.get("artifactType"),
            dict(members.get("annotations") or {}),
            {key: str(value) for key, value in dict(members.get("platform") or {}).items()},
        )

    def document(self) -> dict[str, object]:
        """The descriptor's JSON form, as an entry of an index."""
        members: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            members["artifactType"] = self.artifact_type
        if self.annotations:
            members["annotations"] = self.annotations
        return members

    @property
    def distributable(self) -> bool:
        """Whether the registry is expected to hold the bytes."""
        return not any(word in self.media_type for word in _NOT_DISTRIBUTABLE)


@dataclass(frozen=True)
class Manifest:
    """A manifest's bytes with their media type and digest."""

    content: bytes = field(repr=False)
    media_type: str
    digest: str
    place: str = field(default="", compare=False)

    @classmethod
    def of(cls, content: bytes, media_type: str, place: str = "", algorithm: str = "sha256") -> Self:
        """Take ``content`` as a manifest and compute its digest."""
        return cls(content, media_type, f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}", place)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The parsed JSON."""
        try:
            parsed = json.loads(self.content)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            msg = f"{self.place}: {self.digest} is no JSON object"
            raise Untrustworthy(msg)
        return cast("dict[str, Any]", parsed)

    def _descriptors(self, member: str) -> tuple[Descriptor, ...]:
        return tuple(
            Descriptor.parse(entry, f"{self.place} {self.digest}")
            for entry in self.document.get(member) or ()
        )

    @cached_property
    def children(self) -> tuple[Descriptor, ...]:
        """Manifests that an index names."""
        return self._descriptors("manifests") if self.media_type in INDEXES else ()

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configuration and layers that the registry itself must hold."""
        if self.media_type in INDEXES:
            return ()
        config = self.document.get("config")
        own = (Descriptor.parse(config, f"{self.place} {self.digest}"),) if config else ()
        return tuple(blob for blob in (*own, *self._descriptors("layers")) if blob.distributable)

    @cached_property
    def subject(self) -> Descriptor | None:
        """What the manifest refers to, if it is a referrer."""
        subject = self.document.get("subject")
        return Descriptor.parse(subject, f"{self.place} {self.digest}") if subject else None

    def descriptor(self) -> Descriptor:
        """The descriptor under which a list of referrers shows this manifest."""
        config = self.document.get("config")
        configured = cast("dict[str, str]", config).get("mediaType") if isinstance(config, dict) else None
        artifact_type = self.document.get("artifactType") or configured
        annotations = self.document.get("annotations")
        return Descriptor(
            self.media_type,
            self.digest,
            len(self.content),
            artifact_type,
            cast("dict[str, str]", annotations) if isinstance(annotations, dict) else {},
        )
