"""The steps from the description to a finished layout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from kilo.errors import BadInput
from sandbox.image.debian import Lock, fetch, unpack
from sandbox.image.description import Description, Platform, describe, this_platform
from sandbox.image.layout import Layout, files_below
from sandbox.image.root import compile_bytecode, install_wheels, settle, site_packages, trim
from sandbox.toolchain.progress import Step


@dataclass(frozen=True)
class Image:
    """What was built."""

    directory: Path
    digest: str
    platform: str
    compressed_bytes: int
    unpacked_bytes: int

    def document(self) -> Mapping[str, object]:
        """The JSON form."""
        return {
            "layout": str(self.directory),
            "digest": self.digest,
            "platform": self.platform,
            "compressed_bytes": self.compressed_bytes,
            "unpacked_bytes": self.unpacked_bytes,
        }


def build(directory: Path, step: Step) -> Image:
    """Write the image for this machine's architecture as an OCI layout into ``directory``.

    Raises:
        BadInput: the directory is there and is no layout made earlier.
        Unreachable: a package or a wheel is not to be had.
    """
    description, target = describe(), this_platform()
    if directory.exists() and any(directory.iterdir()) and not (directory / "oci-layout").exists():
        msg = f"--output {directory}: holds something else than an image; name a new directory"
        raise BadInput(msg)
    lock = Lock.read(target)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kilo-image-", dir=directory.parent) as made:
        work = Path(made)
        root = work / "root"
        root.mkdir()
        unpack(fetch(lock, description.debian.mirrors, step), root, step)
        step.update("installing wheels")
        trim(root, description)
        settle(root, description)
        install_wheels(root, description, target, work, step)
        step.update("compiling")
        compile_bytecode(root, description, target, step)
        step.update("packing")
        image = _pack(work / "layout", root, description, target, lock)
        # A killed build leaves the earlier image, or none, and never half of one.
        shutil.rmtree(directory, ignore_errors=True)
        (work / "layout").rename(directory)
    return Image(directory, image.digest, image.platform, image.compressed_bytes, image.unpacked_bytes)


def _pack(directory: Path, root: Path, description: Description, target: Platform, lock: Lock) -> Image:
    """Three layers, what changes least first: Debian, the locked wheels, the platform's own code."""
    site = site_packages(description)
    own = (site / "kilo", *((path.relative_to(root)) for path in root.glob(f"{site}/kilo-*.dist-info")))
    command = Path(description.entrypoint[0].lstrip("/"))
    groups: tuple[list[Path], list[Path], list[Path]] = ([], [], [])
    size = 0
    for path in files_below(root):
        if path == command or any(path.is_relative_to(place) for place in own):
            groups[2].append(path)
        else:
            groups[1 if path.is_relative_to(site) else 0].append(path)
        if (root / path).is_file() and not (root / path).is_symlink():
            size += (root / path).stat().st_size
    layout = Layout(directory, lock.time)
    layers = [layout.add_layer(root, group) for group in groups]
    run = {
        "User": f"{description.user}:{description.user}",
        "Env": [f"{name}={value}" for name, value in description.environment.items()],
        "Entrypoint": description.entrypoint,
        "WorkingDir": "/",
    }
    labels = {
        "org.opencontainers.image.title": "kilo",
        "org.opencontainers.image.version": version("kilo"),
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    digest = layout.finish(layers, target.debian, run, labels)
    return Image(directory, digest, f"linux/{target.debian}", sum(layer.size_bytes for layer in layers), size)
