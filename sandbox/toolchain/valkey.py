"""In Valkey's place: the Redis of the machine's packages, which speaks the same, under Valkey's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain import debian
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.progress import Step

PROGRAMS = "usr/bin"


def server() -> Recipe:
    """The server and its command line, with the libraries that its package leaves to others."""
    unpacked = debian.package(
        *("redis-server", "redis-tools", "libjemalloc2", "liblzf1"),
        summary="Redis from its Debian packages, 2 MB",
        disk_bytes=100_000_000,
    )

    def make(directory: Path, step: Step) -> None:
        unpacked.make(directory, step)
        for name in ("server", "cli"):
            (directory / PROGRAMS / f"valkey-{name}").symlink_to(f"redis-{name}")

    return replace(
        unpacked, name="valkey", inputs=f"{unpacked.inputs} as valkey", make=make, check=_check_for_apt
    )


def libraries(directory: Path) -> str:
    """What ``LD_LIBRARY_PATH`` is to be for the programs unpacked in ``directory``."""
    return ":".join(sorted({str(path.parent) for path in (directory / "usr/lib").rglob("*.so*")}))


def _check_for_apt() -> None:
    if not debian.available():
        msg = "valkey: this machine has no apt, from whose packages its server comes; use Debian or Ubuntu"
        raise Unreachable(msg)
