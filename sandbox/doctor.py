"""Looks at this machine for what the sandbox needs, without changing anything."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.daemon import TOOLS
from sandbox.toolchain.cache import cache_root
from sandbox.toolchain.catalogue import missing

_DATA_BYTES = 2_000_000_000
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing that is needed, whether it is there or can be had, and what to do when not."""

    what: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Everything that is needed, in the order in which it is."""
    return list(_findings())


def _findings() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= _OLDEST_PYTHON, f"{version}; 3.11 or later is needed")
    system, machine = platform.system(), platform.machine()
    yield Finding(
        "machine",
        (system, machine) == ("Linux", "x86_64"),
        f"{system} {machine}; the servers are for Linux on x86_64",
    )
    if os.geteuid() == 0:
        place = shutil.which("setpriv")
        detail = place or "not on PATH: apt-get install util-linux"
        yield Finding(
            "setpriv", place is not None, f"{detail} (runs PostgreSQL, which refuses to run as root)"
        )
    recipes = missing(*TOOLS)
    for recipe in recipes:
        try:
            recipe.check()
        except Unreachable as error:
            yield Finding(recipe.name, False, str(error))
        else:
            yield Finding(recipe.name, True, f"the first `kilo up` makes it: {recipe.summary}")
    cache = cache_root()
    if not recipes:
        yield Finding("programs", True, f"all in {cache}")
    yield _space(cache, sum(recipe.disk_bytes for recipe in recipes), "for programs")
    yield _space(Path.cwd(), _DATA_BYTES, "for the stage's data")


def _space(folder: Path, needed: int, purpose: str) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    detail = f"{free / 1e9:.1f} GB free at {folder}, {needed / 1e9:.1f} GB are needed {purpose}"
    return Finding("disk space", free >= needed, detail)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
