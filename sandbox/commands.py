"""Commands of ``kilo`` that others of the sandbox's run, as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer


def run_kilo(project: Path, *arguments: str, quiet: bool = False) -> None:
    """Another command, which the sandbox knows only as a user does; ends this one when it fails."""
    command = [sys.executable, "-m", "kilo.cli", *arguments]
    done = subprocess.run(command, cwd=project, stdout=subprocess.DEVNULL if quiet else None, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
