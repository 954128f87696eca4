"""Commits what a ramp or a promotion writes into the stage's file, where no person does: in a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from kilo.engine import NotDeployed
from kilo.tenancy import RampWeight
from kilo.traffic.ramps.conductor import Engine

_TRIES = 3


class Branch:
    """The branch that is checked out, for one file.

    Args:
        path: of the stage's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def commit(self, message: str) -> None:
        """Commit the file where it has changed, and push.

        Raises:
            NotDeployed: the branch does not take the commit.
        """
        if await self._git("diff", "--quiet", "HEAD", "--", self._path.name):
            await self._must("commit", "--quiet", "--message", message, "--", self._path.name)
        for _ in range(_TRIES):
            if await self._git("push", "--quiet") == 0:
                return
            # Somebody else has pushed: theirs first, unless it is about the same lines.
            if await self._git("pull", "--rebase", "--quiet"):
                await self._git("rebase", "--abort")
                break
        msg = f"{self._path.name}: the branch does not take the commit; it is tried again"
        raise NotDeployed(msg)

    async def _must(self, *arguments: str) -> None:
        if await self._git(*arguments):
            msg = f"git {arguments[0]} failed in {self._path.parent}"
            raise NotDeployed(msg)

    async def _git(self, *arguments: str) -> int:
        process = await asyncio.create_subprocess_exec(
            "git", *arguments, cwd=self._path.parent, stdin=asyncio.subprocess.DEVNULL
        )
        return await process.wait()


class Committing:
    """An engine before which, or after a revert, the stage's file is committed and pushed.

    What runs is then never ahead of what the branch says, but for a revert, which does not wait for Git.

    Args:
        engine: carries the file out.
        path: of the stage's file.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._branch = Branch(path)

    async def deploy(self, changes: Mapping[tuple[str, str], RampWeight], *, urgent: bool) -> None:
        """As the engine does.

        Raises:
            NotDeployed: the engine's reasons, or the branch does not take the commit.
        """
        said = ", ".join(f"{tenant} {feature} {weight}" for (tenant, feature), weight in changes.items())
        if urgent:
            await self._engine.deploy(changes, urgent=True)
        await self._branch.commit(f"Ramp {said}")
        if not urgent:
            await self._engine.deploy(changes, urgent=False)
