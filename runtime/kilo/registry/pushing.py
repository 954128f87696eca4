"""Pushing what was made here rather than read from another registry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kilo.registry.blobs import BlobWriter, has_blob
from kilo.registry.client import Repository
from kilo.registry.graph import fallback_tag, referrers_index
from kilo.registry.manifest import Descriptor, Manifest, digest_of


def described(content: bytes, media_type: str) -> Descriptor:
    """The descriptor of ``content``."""
    return Descriptor(media_type, digest_of(content), len(content))


def push_blob(repository: Repository, content: bytes, media_type: str) -> Descriptor:
    """Push a small blob, unless it is there, and return its descriptor.

    Raises:
        Rejected, RegistryDown, AccessDenied: the registry did not take it.
    """
    blob = described(content, media_type)
    if not has_blob(repository, blob.digest):
        writer = BlobWriter(repository, blob, max(len(content), 1))
        location = writer.mount(None)
        if location is not None:
            writer.put(location, content)
    return blob


def push_manifest(
    repository: Repository, document: Mapping[str, object], media_type: str, tag: str | None = None
) -> Manifest:
    """Push a manifest by ``tag``, or else by its digest. Raises as :func:`push_blob` does."""
    content = json.dumps(document, separators=(",", ":")).encode()
    manifest = Manifest.parse(content, media_type, repository.name)
    repository.put_manifest(manifest, tag)
    return manifest


def attach(repository: Repository, subject: str, referrers: Sequence[Mapping[str, object]]) -> list[Manifest]:
    """Push manifests that refer to ``subject``; where the registry does not list them itself, so does a tag.

    Raises as :func:`push_blob` does.
    """
    pushed: list[Manifest] = []
    unlisted: list[Manifest] = []
    for document in referrers:
        content = json.dumps(document, separators=(",", ":")).encode()
        manifest = Manifest.parse(content, str(document["mediaType"]), repository.name)
        pushed.append(manifest)
        if not repository.put_manifest(manifest):
            unlisted.append(manifest)
    if unlisted:
        held = repository.referrers_by_tag(fallback_tag(subject))
        entries = (*held.entries, *(manifest.descriptor() for manifest in unlisted))
        repository.put_manifest(referrers_index(entries), fallback_tag(subject))
    return pushed
