"""Runs the Pulumi engine on a stage where a tool of ours changes it.

The engine runs in a session of its own, so that whatever ends this process leaves it to finish.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kilo.errors import ExitCode, KiloError, Unreachable

_LOCKED = ("currently locked", "already in progress", "[409]")


class NotDeployed(KiloError):
    """The engine has not carried a change out: it is locked, or something is amiss."""

    exit_code = ExitCode.CHECK_FAILED


class Locked(NotDeployed):
    """Another deployment has the stage."""


class HalfDeployed(KiloError):
    """The engine failed while it carried a change out: a part of it may be in force."""

    exit_code = ExitCode.CHECK_FAILED


class EngineSession:
    """The ``pulumi`` on PATH, on one stage.

    Args:
        stage: the stack.
        project: the folder of ``Pulumi.yaml``.
    """

    def __init__(self, stage: str, project: Path) -> None:
        self.stage = stage
        self._project = project

    async def state(self) -> bytes:
        """What ``pulumi stack export`` says, secrets encrypted.

        Raises:
            NotDeployed: the engine refuses.
            Unreachable: there is no engine.
        """
        return await self.run(["stack", "export", "--stack", self.stage])

    async def run(self, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> bytes:
        """Run a command of the engine to its end; what it wrote to standard output.

        Raises:
            NotDeployed: it ended with an error.
            Locked: another deployment has the stage.
            Unreachable: there is no engine.
        """
        engine = shutil.which("pulumi")
        if engine is None:
            msg = "pulumi: not on PATH; in the sandbox run `kilo up`, else install Pulumi 3.259 or later"
            raise Unreachable(msg)
        process = await asyncio.create_subprocess_exec(
            engine,
            *arguments,
            "--non-interactive",
            "--color",
            "never",
            cwd=self._project,
            env={**os.environ, **(variables or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        output, errors = await process.communicate()
        if process.returncode == 0:
            return output
        said = (output + errors).decode(errors="replace")
        if any(sign in said for sign in _LOCKED):
            msg = "another deployment has locked the state; it is tried again (if none runs: pulumi cancel)"
            raise Locked(msg)
        raise NotDeployed(_reason(said))


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = next(
        (line for line in lines if line.startswith("error:")), lines[-1] if lines else "no reason given"
    )
    return f"pulumi: {found.removeprefix('error:').strip()}"
