"""A real Prometheus that holds the samples of a test, and a stage's database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import render_rules
from tests.events import make_outputs
from tests.prometheus import prometheus as run_prometheus


def _in_time(sample: tuple[str, float, float]) -> tuple[str, float]:
    return sample[0], sample[2]


class History:
    """A Prometheus over samples that are written before it starts, at the ages given."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._folder, self._running = folder, ExitStack()
        self._samples: list[tuple[str, float, float]] = []

    def add(self, series: str, value: float, *, ages: tuple[float, ...] = (60, 45, 30, 15, 1)) -> None:
        """One series, such as ``outbox_lost_events{a="b"}``, with a value at each age in seconds."""
        name, _, labels = series.partition("{")
        inside = f'namespace="kilo"{"," if labels else ""}{labels.removesuffix("}").replace(", ", ",")}'
        self._samples += [(f"{name}{{{inside}}}", value, time.time() - age) for age in ages]

    def start(self, *, rules: bool = False, targets: tuple[str, ...] = ()) -> Prometheus:
        """Run it, and give a client of it; it scrapes the targets each second."""
        lines = [f"{name} {value} {at:.3f}\n" for name, value, at in sorted(self._samples, key=_in_time)]
        found = render_rules("test", "kilo") if rules else {"groups": []}
        for group in found["groups"]:
            group["interval"] = "1s"
        history = f"{''.join(lines)}# EOF\n" if lines else ""
        running = run_prometheus(self._folder, rules=found, history=history, targets=targets)
        self.url = self._running.enter_context(running)
        return self._running.enter_context(Prometheus(self.url))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    found = History(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as found:
        yield found


@pytest.fixture
def outputs() -> StackOutputs:
    return make_outputs(keys={})
