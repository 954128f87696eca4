"""Programs from the packages of a Debian or Ubuntu machine, without root and without installing them.

apt gets a state and a cache directory of its own and works as any user; it checks the packages against
the distribution's signed index as always. Only the packages themselves are fetched, not what they depend
on, which suits programs that need nothing but the C library.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Step


def available() -> bool:
    """Whether this machine has apt and dpkg."""
    return all(shutil.which(program) for program in ("apt-get", "dpkg-deb"))


def package(name: str, *more: str, summary: str, disk_bytes: int) -> Recipe:
    """The unpacked tree of one Debian package, or of several over each other under the first one's name."""

    def make(directory: Path, step: Step) -> None:
        work = directory.parent
        for part in ("state/lists/partial", "cache/archives/partial", "download"):
            (work / part).mkdir(parents=True)
        options = [f"Dir::State={work / 'state'}", f"Dir::Cache={work / 'cache'}", "Acquire::Languages=none"]
        options += ["Dir::State::status=/var/lib/dpkg/status"]
        if os.geteuid() == 0:
            # As root apt would download as the user _apt, who can't write here.
            options += ["APT::Sandbox::User=root"]
        apt = ["apt-get", *(f"-o{option}" for option in options)]
        try:
            run([*apt, "update"], step, directory=work, describe=lambda line: f"package index: {line}")
        except Unreachable as error:
            # One broken third-party source fails the update and need not matter to this package.
            update_error: Unreachable | None = error
        else:
            update_error = None
        try:
            run(
                [*apt, "download", name, *more], step, directory=work / "download", describe=lambda line: line
            )
        except Unreachable as error:
            raise update_error or error from error
        for archive in sorted((work / "download").glob("*.deb")):
            run(["dpkg-deb", "-x", archive, directory], step, directory=work)

    release = platform.freedesktop_os_release()
    system = f"{release.get('ID')} {release.get('VERSION_ID', release.get('VERSION_CODENAME'))}"
    inputs = f"{' '.join((name, *more))} {system}"
    return Recipe(name, summary, inputs, disk_bytes, make)
