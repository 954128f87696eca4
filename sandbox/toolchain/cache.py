"""Where built and downloaded programs are kept: outside the tree, found again by what they were made from.

An installed thing is a directory whose name ends with a hash of everything that it depends on, so that a
warm cache is found by any checkout and a changed pin never meets an old build. It appears by one rename
of a finished directory: a crash in the middle leaves a ``.partial-`` directory that the next run removes.
Nothing here removes older versions, because another checkout may be using them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain.progress import Step


@dataclass(frozen=True)
class Recipe:
    """How one directory of programs comes to be.

    Attributes:
        name: short name, also the stem of the directory.
        summary: what is built or downloaded, and how much of it, for a person.
        inputs: text of everything that the result depends on.
        disk_bytes: free space that making it takes, caches of the tools used included.
        make: fills the empty directory that it is given.
        check: raises Unreachable when the machine lacks what ``make`` needs, before any of it is done.
    """

    name: str
    summary: str
    inputs: str
    disk_bytes: int
    make: Callable[[Path, Step], None]
    check: Callable[[], None] = lambda: None

    @property
    def directory(self) -> Path:
        """Where the finished directory is, or will be."""
        digest = hashlib.sha256(f"{platform.machine()}\n{self.inputs}".encode()).hexdigest()
        return cache_root() / f"{self.name}-{digest[:16]}"


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/kilo/toolchain``, or the same under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kilo" / "toolchain"


def install(recipe: Recipe, step: Step) -> Path:
    """Make the recipe's directory unless it is there; of several processes one makes it and the others wait.

    Raises:
        Unreachable: it can't be downloaded or built here.
    """
    final = recipe.directory
    if final.is_dir():
        return final
    with _lock(recipe.name, step):
        if final.is_dir():
            return final
        for leftover in final.parent.glob(f".partial-{recipe.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{recipe.name}-", dir=final.parent))
        try:
            result = partial / "result"
            result.mkdir()
            recipe.make(result, step)
            os.sync()  # A power cut after the rename must not leave files without their bytes.
            result.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def require_disk_space(recipes: list[Recipe]) -> None:
    """Refuse to start what the disk can't hold.

    Raises:
        Unreachable: less is free than the recipes need together.
    """
    root = cache_root()
    _make_root(root)
    needed, free = sum(recipe.disk_bytes for recipe in recipes), shutil.disk_usage(root).free
    if needed > free:
        names = ", ".join(recipe.name for recipe in recipes)
        msg = (
            f"{root}: {needed / 1e9:.1f} GB are needed to build or download {names}, "
            f"{free / 1e9:.1f} GB are free; free some space or point XDG_CACHE_HOME at a larger disk"
        )
        raise Unreachable(msg)


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{root}: can't be created ({error.strerror}); point XDG_CACHE_HOME at a writable directory"
        raise Unreachable(msg) from error


@contextmanager
def _lock(name: str, step: Step) -> Generator[None]:
    root = cache_root()
    _make_root(root)
    # The kernel drops a flock with its holder, however that ends.
    with (root / f".lock-{name}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            step.update("waiting for another process that is making it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
