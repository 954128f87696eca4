"""Whether the worker minds how much waits: its throughput and memory with few rows waiting and with many."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.events_stage import Stage, Turns
from benchmarks.outbox_sides import kilo_worker

_FEW = 10_000
_MIDDLE = 200_000
_PART = 1_000_000


def waiting(made: Stage, most: int, rounds: int) -> tuple[dict[str, Any], str]:
    """Drain tables of ten thousand and of two hundred thousand rows, and the first million of ``most``.

    A session's beginning (connections, leases, an empty read) takes as long with few as with many rows and
    weighs far more on few: it is measured by itself and taken off.
    """
    few, middle, many = Turns("10,000"), Turns("200,000"), Turns(f"{most:,}")
    beginning = Turns("one")
    for _ in range(max(rounds, 3)):
        made.fill(1)
        made.turn(beginning, kilo_worker, 1)
        made.fill(_FEW)
        made.turn(few, kilo_worker, _FEW)
        made.fill(_MIDDLE)
        made.turn(middle, kilo_worker, _MIDDLE)
    started = time.monotonic()
    print(f"filling {most:,} rows", flush=True)
    made.fill(most)
    print(f"filled in {time.monotonic() - started:.0f} s", flush=True)
    for _ in range(max(rounds, 3)):
        made.turn(many, kilo_worker, min(_PART, most // 5), {"part": True})
    begins = 1 / beginning.median("per_second")
    counts = {few.name: _FEW, middle.name: _MIDDLE, many.name: min(_PART, most // 5)}
    rates = {
        each.name: counts[each.name] / (counts[each.name] / each.median("per_second") - begins)
        for each in (few, middle, many)
    }
    lines = [
        "### Rows waiting",
        "",
        "| rows waiting | events/s | CPU ms a 1000 events | peak MB of the worker |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.name} | {rates[each.name]:,.0f} | {each.median('processor_ms_a_thousand'):.0f}"
        f" | {each.median('megabytes'):.0f} |"
        for each in (few, middle, many)
    ]
    content = {
        "ratios": {
            "throughput_many_to_few": round(rates[many.name] / rates[few.name], 2),
            "throughput_many_to_200_thousand": round(rates[many.name] / rates[middle.name], 2),
            "memory_many_to_few": round(many.median("megabytes") / few.median("megabytes"), 2),
        },
        "candidates": {each.name: {**each.medians, "rounds": each.rounds} for each in (few, middle, many)},
    }
    return content, "\n".join([*lines, ""])
