"""``make bench``: one benchmark by its name, or all after another, each in a process of its own.

Of all, one that fails keeps no other from running; at the end the failed ones are named.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The benchmarks: modules of this folder that can be run."""
    files = [file for file in sorted(_HERE.glob("[a-z]*.py")) if "__main__" in file.read_text("utf-8")]
    return [file.stem for file in files]


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that is named first with the arguments after it, or without any name all."""
    every = names()
    if arguments and arguments[0] not in every:
        sys.stderr.write(f"kilo: error: no benchmark '{arguments[0]}'; there are {', '.join(every)}\n")
        return 2
    if arguments:
        return _run(*arguments)
    failed = [name for number, name in enumerate(every, start=1) if _announced(name, number, len(every))]
    if failed:
        sys.stderr.write(f"kilo: error: failed: {', '.join(failed)}; one alone: make bench NAME=...\n")
    return 1 if failed else 0


def _announced(name: str, number: int, of: int) -> int:
    print(f"── {name} ({number} of {of})", file=sys.stderr, flush=True)
    started = time.monotonic()
    code = _run(name)
    print(f"── {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return code


def _run(name: str, *arguments: str) -> int:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=_HERE.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
