"""What every benchmark shares: rounds that take turns, medians, a table of ratios, results as JSON.

Absolute figures move with the machine and with what else runs on it. So all candidates of a comparison
run in every round, one after another, the median round counts, and what is judged are ratios.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Measured:
    """One candidate: operations a second by round, and whatever else was counted."""

    name: str
    per_second: list[float] = field(default_factory=list[float])
    counted: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def median(self) -> float:
        """Operations a second in the median round."""
        return statistics.median(self.per_second)


def measure(
    candidates: dict[str, Callable[[int], int]], *, seconds: float = 0.3, rounds: int = 7
) -> dict[str, Measured]:
    """Run each candidate in ``rounds`` rounds; it gets a number of operations and returns how many it did.

    The number is chosen once a candidate so that a turn takes about ``seconds``.
    """
    counts: dict[str, int] = {}
    for name, run in candidates.items():
        count = 1
        while True:
            per_second, taken = _time(run, count)
            if taken > seconds / 10:
                break
            count *= 4
        counts[name] = max(1, int(per_second * seconds))
    result = {name: Measured(name) for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            result[name].per_second.append(_time(run, counts[name])[0])
    return result


def _time(run: Callable[[int], int], count: int) -> tuple[float, float]:
    started = time.perf_counter()
    done = run(count)
    taken = time.perf_counter() - started
    return done / taken, taken


def table(title: str, results: Sequence[Measured], against: str) -> str:
    """A Markdown table: operations a second, microseconds each, and the ratio to ``against``."""
    base = next(each.median for each in results if each.name == against)
    lines = [
        f"### {title}",
        "",
        f"| what | per second | µs each | times {against} |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.name} | {each.median:,.0f} | {1e6 / each.median:,.2f} | {each.median / base:.2f} |"
        for each in results
    ]
    return "\n".join([*lines, ""])


def save(name: str, results: dict[str, Any], text: str) -> None:
    """Write results to ``benchmarks/results/NAME.json`` and ``.md`` and print the text."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.platform()}
    content = {"machine": machine, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
