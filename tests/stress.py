"""Runs a command beside a load generator: ``python -m tests.stress pytest tests/runtime``.

Twelve busy processes a core make a load of about 25 on two cores, at which waits that count tries or a few
seconds give up. They end with the command.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

_BUSY_PER_CORE = 12
_PATIENCE_SECONDS = 600


def _burn(parent: int) -> None:
    # An orphan ends by itself, also when nobody could terminate it.
    while os.getppid() == parent:
        sum(range(100_000))


def main(command: list[str]) -> int:
    """Run ``command`` under load and return its exit code."""
    context = multiprocessing.get_context("spawn")
    busy = [
        context.Process(target=_burn, args=(os.getpid(),), daemon=True)
        for _ in range(_BUSY_PER_CORE * len(os.sched_getaffinity(0)))
    ]
    for process in busy:
        process.start()
    try:
        return subprocess.call(
            command, env={**os.environ, "KILO_TEST_PATIENCE_SECONDS": str(_PATIENCE_SECONDS)}
        )
    finally:
        for process in busy:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
