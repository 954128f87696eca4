"""Finds and ends processes that outlived the one that answers for them.

Whoever answers for processes sets :data:`MARK` in its environment before it starts any. Children inherit
it, and theirs, and however they change their session or parent they are found by it. A *guardian* waits
for its owner's end and then ends all that carry the owner's mark; the next owner does it once more at its
start, for the case that guardian and owner were killed together.

Linux alone shows other processes' environments without more rights; elsewhere psutil asks for one's own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

MARK = "KILO_SANDBOX_OWNER"


def inherited() -> dict[str, str]:
    """This process's mark, for children that get an environment of their own."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def marked(owner: str) -> list[psutil.Process]:
    """Every process of this user that carries the owner's mark, apart from this one."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == owner:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_marked(owner: str) -> int:
    """Kill every process that carries the owner's mark until there is none; says how many there were."""
    ended = 0
    while found := marked(owner):
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
    end_marked(sys.argv[1])
