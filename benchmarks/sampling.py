"""``make bench NAME=sampling``: what the guard costs a span, on top of OpenTelemetry's SDK.

Three tracers take turns with the same spans: the SDK's own default sampler, the guard below the allowance and
the guard far above it; each hands what is kept to a processor that does nothing. Processor time of this
thread alone, so that what else runs here counts less. Memory is that of the guard after spans of 10,000
tenants, once and after ten times as many.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from benchmarks.harness import show
from kilo.observe.sampling.guard import Guard
from kilo.observe.sampling.sdk import Fragments, GuardProcessor, GuardSampler

RESULTS = Path(__file__).parent / "results"
_TENANTS = 1000


def _guarded(budget: float) -> TracerProvider:
    guard, fragments = Guard({f"t{place}": budget for place in range(_TENANTS)}), Fragments()
    provider = TracerProvider(sampler=GuardSampler(guard, fragments), shutdown_on_exit=False)
    provider.add_span_processor(GuardProcessor(guard, fragments, SpanProcessor()))
    return provider


def _plain() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    return provider


def _spans(provider: TracerProvider, tenants: int) -> Callable[[int], float]:
    """A function that makes so many spans and tells the microseconds of each."""
    tracer, root = provider.get_tracer("bench"), Context()

    def run(count: int) -> float:
        attributes = [
            {
                "kilo.tenant": f"t{place % tenants}",
                "http.route": "/v1/events",
                "kilo.fingerprint": f"k{place}",
            }
            for place in range(count)
        ]
        gc.collect()
        begun = time.thread_time()
        for each in attributes:
            tracer.start_span("POST /v1/events", root, attributes=each).end()
        return (time.thread_time() - begun) / count * 1e6

    return run


def _memory() -> tuple[float, float]:
    """Kilobytes a tenant after one span each, and after ten more each."""
    tenants = [f"t{place}" for place in range(10_000)]
    guard = Guard(dict.fromkeys(tenants, 100.0))
    tracemalloc.start()
    measured: list[float] = []
    for times in (1, 10):
        for place in range(times):
            for tenant in tenants:
                guard.offer(guard.allowance(tenant), "work", {"id": place}, sampled=True)
        measured.append(tracemalloc.get_traced_memory()[0] / len(tenants) / 1024)
    tracemalloc.stop()
    return measured[0], measured[1]


def main() -> None:
    """Measure, print and write ``results/sampling.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=5_000, help="of one turn")
    parser.add_argument("--turns", type=int, default=30)
    given = parser.parse_args()
    sides = {
        "the SDK alone": _spans(_plain(), 10),
        "guard, below the allowance": _spans(_guarded(1e6), 10),
        "guard, 1,000 tenants": _spans(_guarded(1e6), _TENANTS),
        "guard, far above the allowance": _spans(_guarded(1), 10),
    }
    measured: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(given.turns):
        for side, run in sides.items():
            measured[side].append(run(given.spans))
    alone = measured["the SDK alone"]
    # Turn by turn, so that a turn in which the machine was busy is compared with its neighbours.
    more = {
        side: statistics.median(one - base for one, base in zip(times, alone, strict=True))
        for side, times in measured.items()
    }
    once, later = _memory()
    result = {
        "spans_a_turn": given.spans,
        "turns": given.turns,
        "median_microseconds": {side: round(statistics.median(times), 2) for side, times in measured.items()},
        "least_microseconds": {side: round(min(times), 2) for side, times in measured.items()},
        "median_microseconds_on_top": {side: round(value, 2) for side, value in more.items()},
        "kilobytes_a_tenant": {"after 1 span": round(once, 2), "after 11 spans": round(later, 2)},
    }
    rows = [
        [side, f"{statistics.median(times):.2f}", f"{min(times):.2f}", f"{more[side]:+.2f}"]
        for side, times in measured.items()
    ]
    show("Microseconds a span", ["", "median", "least", "on top"], rows)
    print(f"10,000 tenants: {once:.2f} kB each after one span, {later:.2f} kB after eleven")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sampling.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
