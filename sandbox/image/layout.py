"""An OCI image layout written so that the same files give the same bytes.

Formats: image-spec 1.1, layout, manifest, configuration and layer
(https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md). In a layer every file has the same time,
belongs to root, comes in the order of its path and bears no setuid or setgid bit. Compressed bytes are those
of this machine's zlib: the layers' own digests (``diff_ids``) hold for any.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kilo.registry.media import OCI_INDEX, OCI_MANIFEST

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_SPECIAL_BITS = 0o6000
_LEVEL = 6


@dataclass(frozen=True)
class Layer:
    """A layer as it lies in the layout."""

    digest: str
    diff_id: str
    size_bytes: int


class Layout:
    """An image layout in an empty directory."""

    def __init__(self, directory: Path, time: datetime) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._directory = directory
        self._time = time

    def add_layer(self, root: Path, paths: Iterable[Path]) -> Layer:
        """Write ``paths`` below ``root``, with the directories above them, as one layer."""
        partial = self._blobs / ".partial"
        with partial.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
            plain = _Hashing(packed)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
                for path in _with_parents(root, paths):
                    self._add(archive, root, path)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = partial.stat().st_size
        partial.rename(self._blobs / digest)
        return Layer(f"sha256:{digest}", f"sha256:{plain.hexdigest()}", size)

    def finish(
        self, layers: Sequence[Layer], architecture: str, run: Mapping[str, object], labels: Mapping[str, str]
    ) -> str:
        """Write the configuration, the manifest and the index; answers with the manifest's digest."""
        config = {
            "created": f"{self._time:%Y-%m-%dT%H:%M:%SZ}",
            "architecture": architecture,
            "os": "linux",
            "config": {**run, "Labels": dict(labels)},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._add_document(config, _CONFIG),
            "layers": [
                {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size_bytes} for layer in layers
            ],
            "annotations": dict(labels),
        }
        named = self._add_document(manifest, OCI_MANIFEST)
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**named, "platform": {"architecture": architecture, "os": "linux"}}],
        }
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self._directory / "index.json").write_bytes(_encode(index))
        return str(named["digest"])

    def _add_document(self, document: Mapping[str, object], media_type: str) -> dict[str, object]:
        content = _encode(document)
        digest = hashlib.sha256(content).hexdigest()
        (self._blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def _add(self, archive: tarfile.TarFile, root: Path, path: Path) -> None:
        entry = archive.gettarinfo(str(root / path), str(path))
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = int(self._time.timestamp())
        entry.mode &= ~_SPECIAL_BITS
        if not entry.isreg() and not entry.islnk():
            archive.addfile(entry)
            return
        # Of a hard link each name gets the bytes: which one comes first would depend on the disk.
        entry.type, entry.linkname = tarfile.REGTYPE, ""
        entry.size = (root / path).stat().st_size
        with (root / path).open("rb") as content:
            archive.addfile(entry, content)


class _Hashing:
    """Passes bytes on and takes their digest."""

    def __init__(self, target: gzip.GzipFile) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._target.write(content)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def files_below(root: Path) -> Iterator[Path]:
    """Everything below ``root``, directories included, as paths from there."""
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield (Path(folder) / name).relative_to(root)


def _with_parents(root: Path, paths: Iterable[Path]) -> list[Path]:
    every = {parent for path in paths for parent in (path, *path.parents)} - {Path()}
    return sorted(every, key=lambda path: path.parts)


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
