"""An image that a service's sources stand for on this machine: how the sandbox runs what nobody built.

``kilo preview`` writes one for each state of the sources; the sandbox's node looks images up here by the
digest of their reference. Left out on purpose: layers, users and a file system of its own. It is a process
of this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

_REFERENCE = re.compile(r"[^@]+@sha256:(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class LocalImage:
    """What the image's configuration would say."""

    entrypoint: tuple[str, ...]
    path: tuple[str, ...]
    """Directories of its programs."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def directory_of(home: Path, digest: str) -> Path:
    """Where everything of the image with ``digest`` lies, under ``.kilo``."""
    return home / "images" / digest


def write_image(home: Path, digest: str, image: LocalImage) -> None:
    """Make the image known; its files lie in its directory already."""
    file = directory_of(home, digest) / "image.json"
    beside = file.with_name(".image.json")
    beside.write_text(json.dumps(asdict(image)), encoding="utf-8")
    beside.replace(file)


def read_image(home: Path, reference: str) -> LocalImage | None:
    """The image of a reference with a digest; none where nothing local stands for it."""
    if (found := _REFERENCE.fullmatch(reference)) is None:
        return None
    try:
        document = json.loads((directory_of(home, found["digest"]) / "image.json").read_bytes())
    except (OSError, ValueError):
        return None
    return LocalImage(tuple(document["entrypoint"]), tuple(document["path"]), document["environment"])
