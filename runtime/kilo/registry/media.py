"""Media types of manifests, compared as what they are rather than as they were sent.

A registry's Content-Type may be in upper case, have parameters, or be a general one
(``application/json``); a manifest may leave its own ``mediaType`` out. So the type is found from all
there is: the header, the manifest's own word, and its shape, which must agree. A type whose references
are not known here is refused by name: copying it would leave behind what it refers to.

Formats: OCI image index and manifest 1.1, Docker's schema 2. Refused among others: Docker's schema 1
(https://docs.docker.com/engine/deprecated/#pushing-and-pulling-with-image-manifest-v2-schema-1) and the
OCI artifact manifest, which image-spec 1.1 withdrew.
"""

from __future__ import annotations

from collections.abc import Mapping

from kilo.registry.errors import Unreadable
from kilo.registry.parsing import printable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
KNOWN = INDEXES | MANIFESTS
ACCEPTED = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))

IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)

_GENERAL = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)
"""What a server sends that does not know what it serves."""

_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_RUNS = (*_LAYERS, "application/wasm", "application/vnd.wasm.", "application/vnd.docker.plugin")
_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
_NOT_DISTRIBUTABLE = ("nondistributable", "vnd.docker.image.rootfs.foreign")


def normalize(media_type: str) -> str:
    """Without parameters and in lower case: type and subtype are case-insensitive (RFC 9110, 8.3.1)."""
    return media_type.partition(";")[0].strip().lower()


def known_of_header(media_type: str) -> str | None:
    """The type that a Content-Type header names, if it is one whose references are known."""
    found = normalize(media_type)
    return found if found in KNOWN else None


def manifest_type(header: str, document: Mapping[str, object], place: str) -> str:
    """Find the media type of a manifest from what the registry and the manifest itself say.

    Raises:
        Unreadable: they contradict each other, or the type's references are not known.
    """
    sent, own = normalize(header), document.get("mediaType")
    if own is not None and not isinstance(own, str):
        msg = f"{place}: mediaType is {printable(repr(own))}, and should be a string"
        raise Unreadable(msg)
    said = normalize(own or "")
    if said and sent not in _GENERAL and sent != said:
        msg = f"{place}: sent as {printable(sent)}, but calls itself {printable(said)}"
        raise Unreadable(msg)
    found = said or (sent if sent not in _GENERAL else _by_shape(document))
    if found not in KNOWN:
        name = printable(found) if found else "no known shape"
        msg = f"{place}: a manifest of {name}, whose references are not known; it can't be copied whole"
        raise Unreadable(msg)
    _require_shape(found, document, place)
    return found


def is_layer(media_type: str) -> bool:
    """Whether this is the type of an image's layer."""
    return normalize(media_type).startswith(_LAYERS)


def is_blob_of_index(media_type: str) -> bool:
    """Whether an index that names this type names a blob: BuildKit's cache indexes do.

    Source: https://github.com/moby/buildkit/blob/master/cache/remotecache/v1/spec.go
    """
    return is_layer(media_type) or normalize(media_type) == _CACHE_CONFIG


def runs(media_type: str) -> bool:
    """Whether a container runtime would run a layer of this type."""
    return normalize(media_type).startswith(_RUNS)


def is_image_config(media_type: str) -> bool:
    """Whether this is the type of the configuration of something that a container runtime runs."""
    found = normalize(media_type)
    return found in IMAGE_CONFIGS or found.startswith(
        ("application/vnd.wasm.", "application/vnd.docker.plugin")
    )


def is_distributable(media_type: str) -> bool:
    """Whether a registry is expected to hold the bytes."""
    return not any(word in normalize(media_type) for word in _NOT_DISTRIBUTABLE)


def _by_shape(document: Mapping[str, object]) -> str:
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    return OCI_MANIFEST if isinstance(document.get("config"), dict) else ""


def _require_shape(media_type: str, document: Mapping[str, object], place: str) -> None:
    """An index names manifests and no layers, a manifest the other way round (CVE-2021-41190)."""
    index = media_type in INDEXES
    foreign = ("config", "layers", "fsLayers") if index else ("manifests", "fsLayers")
    needed = "manifests" if index else "config"
    present = next((name for name in foreign if document.get(name) is not None), None)
    if present or document.get(needed) is None:
        wrong = f"has {present}" if present else f"has no {needed}"
        msg = f"{place}: calls itself {media_type}, but {wrong}"
        raise Unreadable(msg)
