"""What a preview and a deployment that changes nothing cost, beside an empty program's, and over tenants.

The engine, the SDKs and the providers run as they do for a pull request: on servers that begin empty, with a
cluster that runs nothing. The empty program is the engine's floor: starting it, its language host, the policy
pack. A program of as many random ids is what the SDK, the engine and one provider cost for that number alone.
They and the dev stage take turns in every round. Processor seconds are those of the engine, the program, the
policies and the providers, without the servers that stand for the clouds; memory is theirs and the servers'
together.

Run: ``make bench NAME=preview``, or ``python -m benchmarks.preview --tenants 100 1000 --rounds 3``.
"""

from __future__ import annotations

import argparse
import itertools
import re
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rounds import save
from kilo.changes.preview import parse_events
from sandbox.rehearsal import Rehearsal
from tests.goldens.scenarios import copy_program

STAGE = "dev"
PREVIEW, UP = "preview, no change", "up, no change"
NEW, FIRST = "preview of all", "up of all"
FLOOR = "an empty program"
LIMIT = "as many random ids"
_TENANTS = re.compile(r"^  kilo:tenants:\n(?:    .*\n|\n)+", re.MULTILINE)


@dataclass
class Side:
    """One program in a place of its own, and what each of its operations cost, by round."""

    name: str
    place: Rehearsal
    program: Path
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    processor: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    megabytes: float = 0.0
    resources: int = 0

    def previewed(self, what: str) -> None:
        """Preview it."""
        said = self._measured(what, lambda: self.place.preview(self.program, STAGE))
        if said.refused:
            raise RuntimeError(said.said)

    def carried_out(self, what: str) -> None:
        """Deploy it."""
        self._measured(what, lambda: self.place.carry_out(self.program, STAGE))

    def median(self, what: str, *, processor: bool = False) -> float:
        """Seconds of an operation in the median round."""
        return statistics.median((self.processor if processor else self.seconds)[what])

    def _measured(self, what: str, call: Callable[[], Any]) -> Any:
        stopping = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stopping,))
        watcher.start()
        used, begun = _processor_seconds(), time.monotonic()
        try:
            return call()
        finally:
            self.seconds.setdefault(what, []).append(time.monotonic() - begun)
            self.processor.setdefault(what, []).append(_processor_seconds() - used)
            stopping.set()
            watcher.join()
            print(f"{self.name}: {what}: {self.seconds[what][-1]:.1f} s", file=sys.stderr, flush=True)

    def _watch(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.megabytes = max(self.megabytes, total / 1e6)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def empty_program(folder: Path) -> Path:
    """A project with the same name and policies whose program registers nothing."""
    copy_program(folder)
    (folder / "infra" / "__main__.py").write_text("import pulumi\n", encoding="utf-8")
    return folder


def program_of_ids(folder: Path, resources: int) -> Path:
    """A project with the same policies whose program registers so many resources of one provider."""
    copy_program(folder)
    lines = [
        "import pulumi_random",
        f"for number in range({resources}):",
        "    pulumi_random.RandomId(str(number), byte_length=8)",
    ]
    (folder / "infra" / "__main__.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
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


def beside_the_floor(root: Path, rounds: int) -> list[Side]:
    """The empty program, the dev stage as it is, and as many resources of nothing, taking turns."""
    with ExitStack() as places:
        sides: list[Side] = []

        def begin(name: str, program: Path) -> Side:
            side = Side(name, places.enter_context(Rehearsal()), program)
            side.previewed(NEW)
            side.carried_out(FIRST)
            side.resources = len(side.place.resources(side.program, STAGE))
            sides.append(side)
            return side

        begin(FLOOR, empty_program(root / "empty"))
        dev = begin("the dev stage", copy_program(root / "dev"))
        begin(LIMIT, program_of_ids(root / "ids", dev.resources))
        for _ in range(rounds):
            for side in sides:
                side.previewed(PREVIEW)
                side.carried_out(UP)
    return sides


def with_tenants(root: Path, tenants: int, rounds: int) -> tuple[Side, dict[str, int]]:
    """A stage with so many tenants, and what one more changes of it, by operation."""
    with Rehearsal() as place:
        side = Side(f"{tenants} tenants", place, program_with(root / str(tenants), tenants))
        side.previewed(NEW)
        side.carried_out(FIRST)
        side.resources = len(place.resources(side.program, STAGE))
        for _ in range(rounds):
            side.previewed(PREVIEW)
            side.carried_out(UP)
        more = program_with(root / f"{tenants}-and-one", tenants + 1)
        added = parse_events(place.preview(more, STAGE).events).changes
    return side, {
        op: sum(change.operation == op for change in added) for op in ("create", "update", "replace")
    }


def table(sides: list[Side], added: dict[str, dict[str, int]]) -> str:
    """A Markdown table: seconds, and processor seconds in brackets."""
    operations = (NEW, FIRST, PREVIEW, UP)
    lines = [
        f"| program | resources | {' | '.join(operations)} | peak MB | one tenant more |",
        f"| --- | ---: |{' ---: |' * len(operations)} ---: | --- |",
    ]
    for side in sides:
        costs = [f"{side.median(what):.1f} ({side.median(what, processor=True):.1f})" for what in operations]
        more = ", ".join(f"{count} {op}" for op, count in added.get(side.name, {}).items() if count)
        lines.append(
            f"| {side.name} | {side.resources} | {' | '.join(costs)} | {side.megabytes:.0f} | {more} |"
        )
    return "\n".join([*lines, "", "Seconds; in brackets those of the processor."])


def ratios(sides: list[Side]) -> dict[str, float]:
    """The dev stage against what bounds it, and each count of tenants against the one before it."""
    found: dict[str, float] = {}
    floor, dev, limit, *scaled = sides
    for one, other in [(floor, dev), (limit, dev), *itertools.pairwise(scaled)]:
        for what in (PREVIEW, UP, NEW, FIRST):
            for kind, processor in (("", False), (", processor", True)):
                times = other.median(what, processor=processor) / one.median(what, processor=processor)
                found[f"{other.name} / {one.name}: {what}{kind}"] = round(times, 2)
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        sides = beside_the_floor(root, given.rounds)
        added: dict[str, dict[str, int]] = {}
        for count in given.tenants:
            side, more = with_tenants(root, count, given.rounds)
            sides.append(side)
            added[side.name] = more
    measured = {
        side.name: {
            "seconds": side.seconds,
            "processor_seconds": side.processor,
            "peak_megabytes": side.megabytes,
            "resources": side.resources,
            "one_tenant_more": added.get(side.name),
        }
        for side in sides
    }
    found = ratios(sides)
    said = "\n".join(f"- {name}: {times}" for name, times in found.items())
    save("preview", {"measured": measured, "ratios": found}, f"{table(sides, added)}\n\n{said}\n")


if __name__ == "__main__":
    main()
