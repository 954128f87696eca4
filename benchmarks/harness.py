"""Running programs side by side and saying what each cost: seconds, processor seconds, memory.

One run of a benchmark measures all sides on the same machine in turn, so that ratios hold where
absolute figures do not.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Cost:
    """What a program cost: wall and processor time in seconds, peak resident memory in MB."""

    seconds: float
    processor_seconds: float
    peak_megabytes: float

    def plus(self, other: Cost) -> Cost:
        """Both after each other."""
        return Cost(
            self.seconds + other.seconds,
            self.processor_seconds + other.processor_seconds,
            max(self.peak_megabytes, other.peak_megabytes),
        )


def measure(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a program to its end and return what it cost, its children that it waited for included.

    Raises:
        RuntimeError: it failed; with the end of what it wrote.
    """
    begun = time.monotonic()
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
    ) as process:
        peak = _Peak(process.pid)
        assert process.stdout is not None
        output = process.stdout.read()
        peak.stop()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        msg = f"{argv[0]} failed with {process.returncode}: {output[-500:].decode(errors='replace')}"
        raise RuntimeError(msg)
    return Cost(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, peak.megabytes)


class _Peak:
    """A process's resident high-water mark. The kernel's own sum counts the parent's memory before exec."""

    def __init__(self, pid: int) -> None:
        self.megabytes = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._read_status()
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.02):
            self._read_status()

    def _read_status(self) -> None:
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return
        found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
        self.megabytes = max([self.megabytes, *found])


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table and the machine it was made on."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    console.print(table)
    console.print(f"{os.cpu_count()} processors, {platform.system()} {platform.release()}", highlight=False)
