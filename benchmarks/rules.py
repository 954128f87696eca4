"""``make bench NAME=rules``: what the rules on tenants' objectives cost, beside a copy of rules a tenant.

A real Prometheus has an hour of counters of 10, 1,000 and 10,000 tenants and evaluates one side's rules at a
time: the stage's own, which join objectives by tenant, and copies as Sloth generates them, one set of rules
for each objective of each tenant with the tenant in every selector (seven windows, the period, seven records
about the objective, a page and a ticket). Seconds are what Prometheus says its groups took (the least of
three times, as others may be busy), in a minute at the intervals of the rules. Beyond 100 tenants the copies
of 100 are measured, in front of the counters of all, and multiplied.

Left out: what a month of history adds to sums over days, on both sides. Theirs read more of it, as they sum
steps of thirty seconds and ours steps of five minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import show
from kilo.errors import KiloError
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import render_rules
from kilo.testing.servers.ports import free_port
from sandbox import toolchain

RESULTS = Path(__file__).parent / "results"
_OWN = ("kilo-tenant-records", "kilo-tenant-sums", "kilo-tenant-month", "kilo-tenant-alerts")
_COPIED = 100
_INTERVAL_SECONDS = 20
_HISTORY_SECONDS, _STEP_SECONDS = 3_600, 60
_TURNS = 3
_UNITS = {"s": 1, "m": 60}
_RECORDED = "tenant_?[a-z]*:.+|slo[:_].+"
_REQUESTS = "envoy_gateway_requests_total"
_DURATION = "envoy_gateway_request_duration_milliseconds"
_BURNS = {"page": (("5m", "1h", 14.4), ("30m", "6h", 6)), "ticket": (("2h", "1d", 3), ("6h", "3d", 1))}
_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def _name(number: int) -> str:
    return f"tenant-{number}"


def _history(tenants: int, end: int) -> Iterator[str]:
    """Counters and promises in the OpenMetrics text format."""
    times = range(end - _HISTORY_SECONDS, end + 1, _STEP_SECONDS)
    counters = {
        _REQUESTS: [('version="stable",status="200"', 600), ('version="stable",status="503"', 1)],
        f"{_DURATION}_bucket": [('version="stable",le="300.0"', 590), ('version="stable",le="+Inf"', 601)],
        f"{_DURATION}_count": [('version="stable"', 601)],
    }
    for metric, kinds in counters.items():
        yield f"# TYPE {metric.removesuffix('_total')} {'counter' if metric == _REQUESTS else 'unknown'}\n"
        for number in range(tenants):
            for labels, rate in kinds:
                series = f'{metric}{{namespace="kilo",pod="a",tenant="{_name(number)}",{labels}}}'
                for place, at in enumerate(times):
                    yield f"{series} {place * rate} {at}\n"
    promises = {
        "tenant_objective_budget_ratio": [('objective="availability"', 0.001), ('objective="latency"', 0.01)],
        "tenant_objective_latency_edge": [('le="300.0"', 300)],
        "tenant_limit_requests_per_second": [("", 100)],
    }
    for metric, kinds in promises.items():
        yield f"# TYPE {metric} gauge\n"
        for number in range(tenants):
            for labels, value in kinds:
                series = (
                    f'{metric}{{namespace="kilo",tenant="{_name(number)}"{"," if labels else ""}{labels}}}'
                )
                for at in times[::4]:
                    yield f"{series} {value} {at}\n"
    yield "# EOF\n"


def _copies(tenants: int) -> dict[str, Any]:
    """A set of rules for each objective of each tenant."""
    groups: list[Any] = []
    for number in range(tenants):
        tenant = _name(number)
        whose = f'tenant="{tenant}"'
        ratios = {
            "availability": f'sum(rate({_REQUESTS}{{{whose},status=~"5.."}}[%s]))'
            f' / sum(rate({_REQUESTS}{{{whose},status!="429"}}[%s]))',
            "latency": f'1 - sum(rate({_DURATION}_bucket{{{whose},le="300.0"}}[%s]))'
            f" / sum(rate({_DURATION}_count{{{whose}}}[%s]))",
        }
        for objective, ratio in ratios.items():
            groups.append({"name": f"{tenant}-{objective}", "rules": _copy(tenant, objective, ratio)})
    return {"groups": groups}


def _copy(tenant: str, objective: str, ratio: str) -> list[Any]:
    labels = {"slo_id": f"{tenant}-{objective}", "slo_service": tenant, "slo_slo": objective}
    me = "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
    records = {f"slo:sli_error:ratio_rate{window}": ratio % (window, window) for window in _WINDOWS}
    five = f"slo:sli_error:ratio_rate5m{me}"
    records |= {
        "slo:sli_error:ratio_rate30d": f"sum_over_time({five}[30d]) / count_over_time({five}[30d])",
        "slo:objective:ratio": "vector(0.999)",
        "slo:error_budget:ratio": "vector(1-0.999)",
        "slo:time_period:days": "vector(30)",
        "slo:current_burn_rate:ratio": f"{five} / on (slo_id) group_left () slo:error_budget:ratio{me}",
        "slo:period_burn_rate:ratio": f"slo:sli_error:ratio_rate30d{me}"
        f" / on (slo_id) group_left () slo:error_budget:ratio{me}",
        "slo:period_error_budget_remaining:ratio": f"1 - slo:period_burn_rate:ratio{me}",
        "slo_info": "vector(1)",
    }
    rules: list[Any] = [{"record": name, "expr": query, "labels": labels} for name, query in records.items()]
    for severity, burns in _BURNS.items():
        sides = " or ".join(
            f"(max(slo:sli_error:ratio_rate{short}{me} > ({factor} * 0.001)) without (slo_window)"
            f" and max(slo:sli_error:ratio_rate{long}{me} > ({factor} * 0.001)) without (slo_window))"
            for short, long, factor in burns
        )
        rules.append({"alert": f"Burn-{severity}", "expr": sides, "labels": {**labels, "severity": severity}})
    return rules


def _evaluate(home: Path, rules: dict[str, Any], end: int) -> tuple[dict[str, float], int]:
    """The least seconds that each group took in three times, and how many series are recorded."""
    (home / "rules.json").write_text(json.dumps(rules), encoding="utf-8")
    # Nothing can be recorded before the end of what is there already.
    time.sleep(max(0, end + 1 - time.time()))
    least: dict[str, float] = {}
    with _serving(home) as url, Prometheus(url, seconds=120) as prometheus:
        seen: dict[str, str] = {}
        while len(seen) < _TURNS * len(rules["groups"]):
            time.sleep(1)
            try:
                groups = prometheus.get("rules")["groups"]
            except KiloError:
                continue  # It is starting.
            for group in groups:
                at, name = group["lastEvaluation"], group["name"]
                if not at.startswith("0001") and seen.setdefault(f"{name} {at}", at):
                    took = group["evaluationTime"]
                    least[name] = min(least.get(name, took), took)
        (found,) = prometheus.query(f"count({{__name__=~'{_RECORDED}'}})")
    return least, int(found.value)


@contextmanager
def _serving(home: Path) -> Generator[str]:
    address = f"127.0.0.1:{free_port()}"
    config = {"global": {"evaluation_interval": f"{_INTERVAL_SECONDS}s"}, "rule_files": ["rules.json"]}
    (home / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    command = [
        toolchain.path("prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{address}"
        finally:
            process.kill()


def _minute(rules: dict[str, Any], least: dict[str, float], interval: dict[str, int]) -> float:
    """Seconds of evaluation in a minute, at the intervals that the rules have."""
    return sum(least[group["name"]] * 60 / interval.get(group["name"], 30) for group in rules["groups"])


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


def _compare(tenants: int, load_seconds: float) -> dict[str, Any]:
    whole = render_rules("bench", "kilo")
    own = {"groups": [{**group} for group in whole["groups"] if group["name"] in _OWN]}
    declared = {group["name"]: _seconds(group["interval"]) for group in own["groups"]}
    for group in own["groups"]:
        group["interval"] = f"{_INTERVAL_SECONDS}s"
    copied = min(tenants, _COPIED)
    sides = {"own": (own, 1.0, declared), "copies": (_copies(copied), tenants / copied, {})}
    found: dict[str, Any] = {"tenants": tenants}
    for side, (rules, factor, intervals) in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            home, end = Path(folder), int(time.time() + load_seconds)
            with (home / "history").open("w", encoding="utf-8") as file:
                file.writelines(_history(tenants, end))
            filling = ["tsdb", "create-blocks-from", "openmetrics", "history", "data"]
            subprocess.run(
                [toolchain.path("promtool"), *filling], cwd=home, check=True, stdout=subprocess.DEVNULL
            )
            least, series = _evaluate(home, rules, end)
        found[side] = {
            "rules": round(sum(len(group["rules"]) for group in rules["groups"]) * factor),
            "bytes": round(len(json.dumps(rules)) * factor),
            "series": round(series * factor),
            "seconds_a_minute": round(_minute(rules, least, intervals) * factor, 4),
            "seconds_by_group": {name: round(took, 4) for name, took in least.items() if side == "own"},
            "measured_copies": copied if side == "copies" else None,
        }
    found["copies_to_own"] = round(found["copies"]["seconds_a_minute"] / found["own"]["seconds_a_minute"], 1)
    return found


def main() -> None:
    """Measure, print and write ``results/rules.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1_000, 10_000])
    given = parser.parse_args()
    results = [_compare(tenants, 3 + tenants / 80) for tenants in given.tenants]
    rows = [
        [
            f"{each['tenants']:,}",
            side,
            f"{each[side]['rules']:,}",
            f"{each[side]['bytes'] / 1000:,.0f} kB",
            f"{each[side]['series']:,}",
            f"{each[side]['seconds_a_minute']:.3f} s",
            f"{each['copies_to_own']:.1f}x" if side == "copies" else "",
        ]
        for each in results
        for side in ("own", "copies")
    ]
    columns = ["tenants", "rules", "number", "file", "series", "evaluated a minute", "to own"]
    show("Rules on tenants' objectives", columns, rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rules.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
