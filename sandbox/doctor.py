"""Looks at this machine for what the sandbox needs, without changing anything."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.toolchain.cache import cache_root

_FREE_BYTES = 6_000_000_000
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing that is needed, whether it is there, and what to do when it is not."""

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
    yield from map(
        _program, ("mvn", "java", "git"), ("downloads Debezium", "runs Maven", "reads the checkout")
    )
    if os.geteuid() == 0:
        yield _program("setpriv", "runs PostgreSQL as another user, which refuses to run as root")
    cache = cache_root()
    free = shutil.disk_usage(_existing(cache)).free
    yield Finding(
        "disk space",
        free >= _FREE_BYTES,
        f"{free / 1e9:.1f} GB free for {cache}; {_FREE_BYTES / 1e9:.0f} GB are needed the first time",
    )


def _program(name: str, purpose: str) -> Finding:
    place = shutil.which(name)
    detail = (
        f"{place} ({purpose})"
        if place
        else f"not on PATH; it {purpose}: install it with your package manager"
    )
    return Finding(name, place is not None, detail)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
