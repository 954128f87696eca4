"""Finds and ends processes that outlived the one that answers for them.

Whoever answers for processes sets :data:`MARK` in its environment before it starts any. Children inherit
it, and theirs, and however they change their session or parent they are found by it. A *guardian* waits
for its owner's end and then ends all that carry the owner's mark and were started before: a successor may
have started its own already. The next owner does it once more at its start, for the case that guardian and
owner were killed together.

Linux alone shows other processes' environments without more rights; elsewhere psutil asks for one's own.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import psutil

MARK = "KILO_SANDBOX_OWNER"


def inherited() -> dict[str, str]:
    """This process's mark, for children that get an environment of their own."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def processes_of(owner: str, before: float = math.inf) -> list[psutil.Process]:
    """Every process of this user that carries the owner's mark, apart from this one.

    ``before`` leaves out those that were started later, in seconds as psutil's ``create_time`` has them.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            spared = process.pid == os.getpid() or process.create_time() > before
            if not spared and process.environ().get(MARK) == owner:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_processes_of(owner: str, before: float = math.inf) -> int:
    """Kill every process that :func:`processes_of` finds until there is none; says how many there were."""
    ended = 0
    while found := processes_of(owner, before):
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        gone, _ = psutil.wait_procs(found, timeout=5)
        ended += len(gone)
    return ended


def start_guardian(owner: str) -> subprocess.Popen[bytes]:
    """A process that ends all marked ones when this process is gone, even by SIGKILL."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, owner],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )


if __name__ == "__main__":
    # Nothing is ever written: the pipe's end is the owner's.
    sys.stdin.buffer.read()
    # The boot time that create_time counts from is rounded to seconds, so the time of day would not do.
    end_processes_of(sys.argv[1], before=psutil.boot_time() + time.clock_gettime(time.CLOCK_BOOTTIME))
