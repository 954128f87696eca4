"""Envoy's means against overload beside each other: ``python -m benchmarks.shedding``.

Six tenants ask for three times what a service can do. Each side is the platform's gateway with another
filter in the place of its own: none, one adaptive limit of concurrency for everybody, admission control, and
ours. What counts is who is served, what is served in time as a share of what the service can do, and how
long its queue gets.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.rounds import save
from kilo.traffic import listeners
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import Json, typed
from tests.runtime.traffic.support import Gateway, free_port
from tests.surge.offered import OBJECTIVE_MS, Outcome, offered, three_times_the_capacity

Render = Callable[[GatewaySettings, int], Json]
_FILTERS = "envoy.extensions.filters.http"


def _one_limit(settings: GatewaySettings, target_latency_ms: int) -> Json:
    controller = {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {
            "max_concurrency_limit": settings.max_concurrent_requests,
            "concurrency_update_interval": "0.100s",
        },
        "min_rtt_calc_params": {
            "fixed_value": f"{target_latency_ms / 1000:.3f}s",
            "min_concurrency": settings.min_concurrent_requests,
        },
    }
    limit = typed(
        f"{_FILTERS}.adaptive_concurrency.v3.AdaptiveConcurrency",
        enabled={"default_value": True, "runtime_key": "benchmark.unused"},
        concurrency_limit_exceeded_status={"code": 429},
        gradient_controller_config=controller,
    )
    return {"name": "one-limit", "typed_config": limit}


def _admission_control(settings: GatewaySettings, target_latency_ms: int) -> Json:
    del settings, target_latency_ms
    control = typed(
        f"{_FILTERS}.admission_control.v3.AdmissionControl",
        enabled={"default_value": True, "runtime_key": "benchmark.unused"},
        sampling_window="3s",
        sr_threshold={"default_value": {"value": 95}, "runtime_key": "benchmark.unused2"},
        success_criteria={"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}},
    )
    return {"name": "admission-control", "typed_config": control}


def _nothing(settings: GatewaySettings, target_latency_ms: int) -> Json:
    del settings, target_latency_ms
    header = typed(f"{_FILTERS}.header_mutation.v3.HeaderMutation")
    return {"name": "nothing", "typed_config": header}


SIDES: dict[str, Render] = {
    "nothing": _nothing,
    "admission control": _admission_control,
    "one limit of concurrency": _one_limit,
    "shares and six limits": listeners.render_shedding,
}


def _run(render: Render) -> Outcome:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(patch.object(listeners, "render_shedding", render))

        def make(**given: Any) -> Gateway:
            ports = {name: free_port() for name in ("listener_port", "operations_port", "drain_port")}
            settings = GatewaySettings(**ports, **given)
            gateway = Gateway(directory / "mount", settings)
            gateway.directory.mkdir(parents=True)
            stack.callback(gateway.stop)
            return gateway

        return asyncio.run(offered(make, *three_times_the_capacity()))


def main() -> int:
    """Measure, print and write ``benchmarks/results/shedding.json``."""
    tiers = {tenant.id: tenant.tier for tenant in three_times_the_capacity()[0]}
    lines = [
        f"### Three times the capacity, objective {OBJECTIVE_MS} ms",
        "",
        "| what sheds | gold served | silver | bronze | p99 of gold, ms | goodput | longest queue |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    sides: dict[str, Any] = {}
    for name, render in SIDES.items():
        outcome = _run(render)
        served: dict[str, float] = {}
        for tier in ("gold", "silver", "bronze"):
            members = [result for tenant, result in outcome.results.items() if tiers[tenant] == tier]
            asked = sum(each.asked for each in members)
            served[tier] = sum(each.statuses[200] for each in members) / asked
        p99 = max(outcome.results[tenant].percentile(99) for tenant, tier in tiers.items() if tier == "gold")
        sides[name] = {
            "served": served,
            "gold_p99_ms": p99 * 1000,
            "goodput": outcome.goodput,
            "longest_queue": outcome.longest_queue,
        }
        lines.append(
            f"| {name} | {served['gold']:.1%} | {served['silver']:.1%} | {served['bronze']:.1%} "
            f"| {p99 * 1000:,.0f} | {outcome.goodput:.1%} | {outcome.longest_queue:,} |"
        )
    save("shedding", {"sides": sides}, "\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
