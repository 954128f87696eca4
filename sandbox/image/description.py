"""What ``runtime.toml`` says, checked."""

from __future__ import annotations

import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kilo.errors import Unreachable

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Debian(_Model):
    """Packages, and what of them stays."""

    suite: str
    packages: list[str]
    without: list[str]
    programs: list[str]
    remove: list[str]
    mirrors: list[str]


class Description(_Model):
    """What is in the image, and how it is run."""

    user: Annotated[int, Field(ge=1000)]
    python: str
    extras: list[str]
    entrypoint: list[str]
    environment: dict[str, str]
    debian: Debian


@dataclass(frozen=True)
class Platform:
    """One architecture by the names that its three worlds have for it."""

    debian: str
    """Also what OCI calls it."""
    triplet: str
    loader: str
    wheels: str


PLATFORMS = {
    "x86_64": Platform(
        "amd64", "x86_64-linux-gnu", "usr/lib64/ld-linux-x86-64.so.2", "x86_64-manylinux_2_28"
    ),
    "aarch64": Platform(
        "arm64", "aarch64-linux-gnu", "usr/lib/ld-linux-aarch64.so.1", "aarch64-manylinux_2_28"
    ),
}


def describe() -> Description:
    """The description beside this file."""
    return Description.model_validate(tomllib.loads((HERE / "runtime.toml").read_text()))


def this_platform() -> Platform:
    """The machine's own: bytecode is made by the image's own Python.

    Raises:
        Unreachable: no image is made for this machine's architecture.
    """
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in PLATFORMS:
        known = " or ".join(PLATFORMS)
        msg = f"an image is built on Linux for the machine's own architecture, {known}; this is {machine}"
        raise Unreachable(msg)
    return PLATFORMS[machine]


def lock_path(target: Platform) -> Path:
    """Which packages of Debian are in the image for ``target``, with their checksums."""
    return HERE / f"debian.{target.debian}.lock"


WHEELS_LOCK = REPOSITORY / "requirements" / "image.lock"
