"""Collects previews whose time is over on this machine: calls ``kilo preview collect`` when one is.

``kilo preview`` notes beside each preview's stack until when it stands. The command looks for itself what
is over and has the engine remove it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from kilo.environment import OUTPUTS_VARIABLE
from kilo.testing.servers.process import command

logger = logging.getLogger(__name__)

NOTE = "expires-at"
"""The file's name; it holds seconds since the epoch."""
LOOK_SECONDS = 15.0
_AFTER_FAILURE_SECONDS = 300.0


def is_over(project: Path, now: float) -> bool:
    """Whether a preview of the project has outlived its time."""
    for note in (project / ".kilo" / "previews").glob(f"*/{NOTE}"):
        with suppress(OSError, ValueError):
            if float(note.read_text(encoding="ascii")) <= now:
                return True
    return False


async def collect_until(stopped: asyncio.Event, project: Path) -> None:
    """Look now and then until ``stopped`` is set."""
    pause = LOOK_SECONDS
    while not stopped.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), pause)
        pause = LOOK_SECONDS
        if not stopped.is_set() and is_over(project, time.time()) and await _collect(project):
            # What can't be removed now is not asked for again at once.
            pause = _AFTER_FAILURE_SECONDS


async def _collect(project: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        *command([sys.executable, "-m", "kilo.cli", "preview", "collect"]),
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != OUTPUTS_VARIABLE},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    logger.info("kilo preview collect: %s", said.decode(errors="replace").strip()[-500:])
    return process.returncode or 0
