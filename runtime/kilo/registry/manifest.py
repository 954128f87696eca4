"""Manifests and descriptors, as far as a copy needs to understand them.

Formats: OCI image index, manifest and descriptor 1.1
(https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md) and Docker's schema 2. A manifest is
parsed once, where it enters, and what is malformed is refused there. The bytes are kept as they came:
a manifest's digest is of its bytes, so nothing is ever written back from a parsed form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from kilo.registry import media
from kilo.registry.errors import Unreadable
from kilo.registry.media import INDEXES
from kilo.registry.parsing import (
    LARGEST_SIZE,
    list_of,
    parse_object,
    printable,
    refuse,
    text_of,
    texts_of,
)
from kilo.registry.reference import DIGEST_PATTERN

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
"""Registries refuse manifests above 4 MiB, so one that is larger is no manifest."""

_MEMBERS = frozenset(
    {"schemaversion", "mediatype", "artifacttype", "config", "layers", "manifests", "subject", "annotations"}
)


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
            Unreadable: a required member is missing or malformed.
        """
        if not isinstance(document, dict):
            refuse(place, "a descriptor", document, "an object")
        members = cast("dict[str, Any]", document)
        digest, size = members.get("digest"), members.get("size")
        if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest):
            refuse(place, "a descriptor's digest", digest, "sha256: or sha512: and hexadecimal digits")
        if type(size) is not int or not 0 <= size <= LARGEST_SIZE:
            refuse(place, f"the size of {digest}", size, "a number of bytes")
        inside = f"{place}: {digest}"
        platform = members.get("platform")
        if platform is not None and not isinstance(platform, dict):
            refuse(inside, "platform", platform, "an object")
        return cls(
            text_of(members, "mediaType", inside),
            digest,
            size,
            text_of(members, "artifactType", inside) or None,
            texts_of(members, "annotations", inside),
            {
                key: value
                for key, value in cast("dict[str, object]", platform or {}).items()
                if isinstance(value, str)
            },
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
        return media.is_distributable(self.media_type)


@dataclass(frozen=True)
class Manifest:
    """A manifest: its bytes, its digest, and what it names."""

    content: bytes = field(repr=False)
    media_type: str
    digest: str
    place: str = field(default="", compare=False)
    children: tuple[Descriptor, ...] = field(default=(), compare=False)
    """Manifests that an index names."""
    config: Descriptor | None = field(default=None, compare=False)
    layers: tuple[Descriptor, ...] = field(default=(), compare=False)
    """Also the blobs that a BuildKit cache index names."""
    subject: Descriptor | None = field(default=None, compare=False)
    """What the manifest refers to, if it is a referrer."""
    artifact_type: str | None = field(default=None, compare=False)
    annotations: dict[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, content: bytes, media_type: str, place: str = "", algorithm: str = "sha256") -> Self:
        """Read a manifest; ``media_type`` is what the registry calls it.

        Raises:
            Unreadable: it is malformed, too large, or of a type whose references are not known.
        """
        if len(content) > SIZE_LIMIT_BYTES:
            msg = f"{place}: a manifest of {len(content)} bytes; at most {SIZE_LIMIT_BYTES} are allowed"
            raise Unreadable(msg)
        digest = digest_of(content, algorithm)
        inside = f"{place} ({digest[:19]}…)"
        document = parse_object(content, inside)
        _require_one_meaning(document, inside)
        found = media.manifest_type(media_type, document, inside)
        named = tuple(Descriptor.parse(entry, inside) for entry in list_of(document, "manifests", inside))
        blobs = tuple(Descriptor.parse(entry, inside) for entry in list_of(document, "layers", inside))
        config, subject = document.get("config"), document.get("subject")
        return cls(
            content,
            found,
            digest,
            place,
            tuple(entry for entry in named if _is_manifest(entry, inside)),
            None if config is None else Descriptor.parse(config, inside),
            (*blobs, *(entry for entry in named if media.is_blob_of_index(entry.media_type))),
            None if subject is None else Descriptor.parse(subject, inside),
            text_of(document, "artifactType", inside) or None,
            texts_of(document, "annotations", inside),
        )

    @property
    def is_index(self) -> bool:
        """Whether it names other manifests."""
        return self.media_type in INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configuration and layers that the registry itself must hold."""
        own = (self.config,) if self.config is not None else ()
        return tuple(blob for blob in (*own, *self.layers) if blob.distributable)

    @property
    def kind(self) -> str:
        """What sort of artifact it is: its artifact type, or else its configuration's media type."""
        return self.artifact_type or (self.config.media_type if self.config else "") or self.media_type

    def descriptor(self) -> Descriptor:
        """The descriptor under which a list of referrers shows this manifest."""
        configured = self.config.media_type if self.config is not None else None
        return Descriptor(
            self.media_type,
            self.digest,
            len(self.content),
            self.artifact_type or configured,
            self.annotations,
        )


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of ``content`` (image-spec, "Digests")."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _is_manifest(entry: Descriptor, place: str) -> bool:
    """Whether an index's entry is a manifest, rather than a blob of a build cache."""
    if media.is_blob_of_index(entry.media_type):
        return False
    if media.normalize(entry.media_type) not in media.KNOWN:
        name = printable(entry.media_type) or "no media type"
        msg = f"{place}: names {entry.digest} of {name}, whose references are not known"
        raise Unreadable(msg)
    return True


def _require_one_meaning(document: Mapping[str, object], place: str) -> None:
    """Go's JSON ignores the case of members, so "Layers" would be read by some and not by others."""
    for name in document:
        if name.lower() in _MEMBERS and name not in _EXACT:
            msg = f"{place}: the member {printable(name)!r} differs only in case from one that has a meaning"
            raise Unreadable(msg)


_EXACT = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
)
