"""An image layout as one file, under a name, as containerd and what is built on it load one.

Format: image-spec 1.1's layout in a tar archive; the name is in its index, where containerd looks for it
(https://github.com/containerd/containerd/blob/main/pkg/images/annotations.go).
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from kilo.errors import BadInput

_NAME = "io.containerd.image.name"
_TAG = "org.opencontainers.image.ref.name"


def require_writable(reference: str, file: Path) -> None:
    """Say what would stop :func:`write_archive`, before the image is built.

    Raises:
        BadInput: the reference has no tag, or the file's directory is not there.
    """
    repository, _, tag = reference.rpartition(":")
    if not repository or not tag or "/" in tag or "@" in reference:
        msg = f"--name {reference}: an archive's image has a tag, as in registry.example.com/kilo:1"
        raise BadInput(msg)
    if file.is_dir() or not file.parent.is_dir():
        msg = f"--archive {file}: no file can be written there; name one in a directory that is there"
        raise BadInput(msg)


def write_archive(layout: Path, reference: str, file: Path) -> None:
    """Write the image in ``layout`` into ``file`` under ``reference``, as ``registry.example.com/kilo:1``.

    Raises:
        BadInput: as :func:`require_writable` says, or the disk does not take it.
    """
    require_writable(reference, file)
    index = json.loads((layout / "index.json").read_bytes())
    for manifest in index["manifests"]:
        manifest["annotations"] = {_NAME: reference, _TAG: reference.rpartition(":")[2]}
    content = json.dumps(index, separators=(",", ":"), sort_keys=True).encode()
    beside = file.with_name(f".{file.name}.partial")
    try:
        with tarfile.open(beside, "w") as archive:
            named = tarfile.TarInfo("index.json")
            named.size = len(content)
            archive.addfile(named, io.BytesIO(content))
            for path in (layout / "oci-layout", *sorted((layout / "blobs").rglob("*"))):
                if path.is_file():
                    archive.add(path, str(path.relative_to(layout)))
        beside.replace(file)
    except OSError as error:
        msg = f"--archive {file}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
    finally:
        beside.unlink(missing_ok=True)
