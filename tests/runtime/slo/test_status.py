"""``kilo slo status`` and ``list``, with a real Prometheus that evaluates the stage's rules."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilo.errors import ExitCode
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import render_rules
from tests.patience import until
from tests.prometheus import Say, prometheus, saying

REQUESTS = 6_000
FAILED = {"acme": 30, "globex": 3}
"""A minute; 0.1 % may fail."""
SLOW = {"acme": 0, "globex": 30}
"""A minute; 1 % may be slow."""
STAGE, EDGE = "test", 'le="300"'


def history() -> str:
    """Two hours of steady traffic."""
    families: dict[str, list[str]] = {}
    now = int(time.time())

    def sample(family: str, labels: str, value: float, at: int, suffix: str = "") -> None:
        series = f'{family}{suffix}{{namespace="kilo",pod="gateway-0",{labels}}}'
        families.setdefault(family, []).append(f"{series} {value} {at}")

    for at in range(now - 7_200, now, 30):
        minutes = (at - now + 7_200) / 60
        for tenant, failed in FAILED.items():
            whose = f'tenant="{tenant}",version="stable"'
            total, slow = REQUESTS * minutes, SLOW[tenant] * minutes
            requests, duration = "envoy_gateway_requests", "envoy_gateway_request_duration_milliseconds"
            sample(requests, f'{whose},status="200"', total - failed * minutes, at, "_total")
            sample(requests, f'{whose},status="503"', failed * minutes, at, "_total")
            sample(f"{duration}_bucket", f"{whose},{EDGE}", total - slow, at)
            sample(f"{duration}_count", whose, total, at)
            # Recorded from now on; of before, a rule could not know it.
            sample("tenant_pod:slow:total", f'{whose},{EDGE},stage="{STAGE}"', slow, at)
            sample("tenant_objective_latency_edge_milliseconds", f'tenant="{tenant}",{EDGE}', 300, at)
            for objective, share in (("availability", 0.001), ("latency", 0.01)):
                labels = f'tenant="{tenant}",objective="{objective}"'
                sample("tenant_objective_budget_ratio", labels, share, at)
    counters = {"envoy_gateway_requests": "counter"}
    parts = (
        f"# TYPE {name} {counters.get(name, 'gauge')}\n" + "\n".join(sorted(lines))
        for name, lines in families.items()
    )
    return "\n".join(parts) + "\n# EOF\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    rules = render_rules(STAGE, "kilo")
    often = {"groups": [{**group, "interval": "1s"} for group in rules["groups"]]}
    with prometheus(tmp_path_factory.mktemp("prometheus"), rules=often, history=history()) as found:
        with Prometheus(found) as client:
            until(lambda: len(client.query("tenant:latency_budget_exhaustion:seconds")) == 1)
        yield found


@pytest.fixture
def say(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run ``kilo slo ARGUMENTS``: its exit code, output and error output."""
    return saying("slo", url, tmp_path, monkeypatch, capsys)


def test_status_says_what_is_left_and_how_fast_it_goes(say: Say) -> None:
    code, output, _ = say("status", "--json")
    found = {(each["tenant"], each["objective"]): each for each in json.loads(output)}
    assert code == ExitCode.OK
    assert next(iter(found))[0] == "acme"
    burns = {key: each["burn_1h"] for key, each in found.items()}
    assert burns == {
        ("acme", "availability"): pytest.approx(5, rel=0.02),
        ("acme", "latency"): pytest.approx(0, abs=0.01),
        ("globex", "availability"): pytest.approx(0.5, rel=0.02),
        ("globex", "latency"): pytest.approx(0.5, rel=0.02),
    }
    left = {key: each["left_30d"] for key, each in found.items()}
    assert left == {key: pytest.approx(1 - burn, abs=0.05) for key, burn in burns.items()}
    assert found["globex", "latency"]["threshold_ms"] == 300
    # Half of the budget is left, and burns half as fast as it may.
    assert found["globex", "latency"]["exhausted_in_seconds"] == pytest.approx(30 * 86_400, rel=0.25)
    assert found["acme", "latency"]["exhausted_in_seconds"] is None


def test_the_table_fits_and_says_used_up(say: Say) -> None:
    code, output, _ = say("status")
    lines = output.splitlines()
    assert code == ExitCode.OK
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "used up" in line] == ["acme"]
    assert "globex" not in say("status", "acme")[1]


def test_list_says_what_is_promised(say: Say) -> None:
    code, output, _ = say("list", "--json")
    assert code == ExitCode.OK
    assert json.loads(output)[1] == {
        "tenant": "acme",
        "objective": "latency",
        "target": 0.99,
        "threshold_ms": 300,
    }
    assert "99 % < 300 ms" in say("list")[1]


def test_an_unknown_tenant_is_named(say: Say) -> None:
    code, _, errors = say("status", "nobody")
    assert code == ExitCode.BAD_INPUT
    assert "nobody: the stage has no such tenant; tenants: acme" in errors
