"""What a preview and a deployment that changes nothing cost, beside an empty program's, and over tenants.

The engine, the SDKs and the providers run as they do for a pull request: on servers that begin empty, with a
cluster that runs nothing. Memory is the sum over every process of it, the servers included.

Run: ``make bench NAME=preview``, or ``python -m benchmarks.preview 1 100 1000``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.harness import show
from runtime.changes.preview import parse_events
from sandbox.rehearsal import Rehearsal
from tests.goldens.scenarios import ROOT, copy_program

STAGE = "dev"
_TENANTS = re.compile(r"^  kilo:tenants:\n(?:    .*\n|\n)+", re.MULTILINE)


class Measured:
    """Seconds of a call, and the most memory in MB that this process's children had at once meanwhile."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.megabytes = 0.0
        stopping = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stopping,))
        watcher.start()
        begun = time.monotonic()
        self.result = call()
        self.seconds = time.monotonic() - begun
        stopping.set()
        watcher.join()

    def _watch(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.megabytes = max(self.megabytes, total / 1e6)


def empty_program(folder: Path) -> Path:
    """A project with the same name whose program registers nothing."""
    (folder / "infra").mkdir(parents=True)
    (folder / "infra" / "__main__.py").write_text("import pulumi\n", encoding="utf-8")
    (folder / "Pulumi.yaml").write_bytes((ROOT / "Pulumi.yaml").read_bytes())
    (folder / f"Pulumi.{STAGE}.yaml").write_text("config:\n  aws:region: eu-central-1\n", encoding="utf-8")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def program_with(folder: Path, tenants: int) -> Path:
    """The program, with ``tenants`` of the lowest tier in its stage."""
    copy_program(folder)
    file = folder / f"Pulumi.{STAGE}.yaml"
    entries = "".join(f"    - {{ id: tenant-{number:04}, tier: bronze }}\n" for number in range(tenants))
    text, replaced = _TENANTS.subn(f"  kilo:tenants:\n{entries}\n", file.read_text(encoding="utf-8"))
    assert replaced == 1
    file.write_text(text, encoding="utf-8")
    return folder


def row(name: str, rehearsal: Rehearsal, program: Path, another: Path | None = None) -> list[str]:
    """Measure one program: preview on nothing, up, preview of no change, up of no change, one more tenant."""
    new = Measured(lambda: rehearsal.preview(program, STAGE))
    up = Measured(lambda: rehearsal.carry_out(program, STAGE))
    again = Measured(lambda: rehearsal.preview(program, STAGE))
    same = Measured(lambda: rehearsal.carry_out(program, STAGE))
    changed = ""
    if another:
        added = parse_events(rehearsal.preview(another, STAGE).events)
        counts = {op: sum(c.operation == op for c in added.changes) for op in ("create", "update", "replace")}
        changed = ", ".join(f"{count} {op}" for op, count in counts.items() if count)
    return [
        name,
        *(f"{measured.seconds:.1f}" for measured in (new, up, again, same)),
        f"{max(new.megabytes, again.megabytes):.0f}",
        f"{max(up.megabytes, same.megabytes):.0f}",
        changed,
    ]


def main() -> None:
    """Measure and print a table."""
    counts = [int(word) for word in sys.argv[1:]] or [1, 100, 1000]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with Rehearsal() as rehearsal:
            rows.append(row("an empty program", rehearsal, empty_program(root / "empty")))
        with Rehearsal() as rehearsal:
            rows.append(row("dev", rehearsal, copy_program(root / "dev")))
        for count in counts:
            with Rehearsal() as rehearsal:
                program = program_with(root / str(count), count)
                another = program_with(root / f"{count}-and-one", count + 1)
                rows.append(row(f"{count} tenants", rehearsal, program, another))
            print(rows[-1], file=sys.stderr, flush=True)
    columns = [
        "program",
        "preview s",
        "up s",
        "preview, no change s",
        "up, no change s",
        "preview MB",
        "up MB",
    ]
    show("Previews and deployments", [*columns, "one tenant more"], rows)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
