"""Timeouts from what was measured: proposed within bounds, written for a review, all else untouched."""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kilo.tenancy import Objective, RateLimit, TierName, TierPolicy
from kilo.traffic.stage_file import load_tiers, set_timeouts
from kilo.traffic.tuning import Latency, propose

ROOT = Path(__file__).parents[3]
KILO = Path(sys.executable).with_name("kilo")


def policy(timeout_ms: int) -> TierPolicy:
    return TierPolicy(
        limit=RateLimit(requests_per_second=10, burst=10),
        timeout_ms=timeout_ms,
        retries=1,
        objective=Objective(availability_percent=99, latency_threshold_ms=300, latency_percent=99),
        spans_per_second=1,
    )


@pytest.mark.parametrize(
    ("p99s", "proposed"),
    [
        # Three times the slowest, rounded up to 50 ms.
        ({"acme": 610.0, "globex": 500.0}, 1_850),
        # Not below what is called slow, nor by more than half at once, up or down.
        ({"acme": 5.0}, 1_334),
        ({"acme": 9_000.0}, 3_000),
        # Nothing measured, too little, or nonsense: kept.
        ({}, 2_000),
        ({"acme": float("nan")}, 2_000),
        ({"acme": float("inf")}, 2_000),
    ],
)
def test_a_timeout_follows_the_slowest_tenant_within_bounds(p99s: dict[str, float], proposed: int) -> None:
    measured = [Latency(name, "gold", 5_000, p99) for name, p99 in p99s.items()]
    # A bronze tenant and one with a few requests say nothing of gold.
    measured += [Latency("initech", "bronze", 9_000, 50_000), Latency("idle", "gold", 999, 50_000)]
    tiers: dict[TierName, TierPolicy] = {"gold": policy(2_000)}
    (found,) = propose(tiers, measured)
    assert (found.timeout_ms, found.proposed_ms) == (2_000, proposed), found.reason


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_only_the_numbers_change_in_the_file(stage: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / f"Pulumi.{stage}.yaml", tmp_path))
    before = file.read_text()
    set_timeouts(file, {"gold": 1_850, "bronze": 12_345})
    assert {tier: load_tiers(file)[tier].timeout_ms for tier in ("gold", "bronze")} == {
        "gold": 1_850,
        "bronze": 12_345,
    }
    changed = [
        line for line in difflib.ndiff(before.splitlines(), file.read_text().splitlines()) if line[0] in "+-"
    ]
    assert len(changed) == 4
    assert all("timeout_ms" in line for line in changed)


@pytest.fixture
def prometheus() -> Iterator[str]:
    """Answers the two queries as Prometheus does: 5,000 requests a tenant, p99 of 610 ms."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            value = "610" if "histogram_quantile" in asked["query"][0] else "5000"
            result = [{"metric": {"tenant": name}, "value": [0, value]} for name in ("acme", "globex")]
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def kilo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(KILO), "traffic", "tune", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_proposal_is_said_and_written_only_when_asked(prometheus: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path))
    before = file.read_text()
    done = kilo(str(file), "--prometheus", prometheus)
    assert done.returncode == 0, done.stderr
    assert "gold: 2000 -> 1850 ms (3 times acme's p99 of 610 ms is 1850 ms)" in done.stdout
    assert "bronze: 5000 ms (no tenant had 1,000 requests: kept)" in done.stdout
    assert file.read_text() == before

    assert "review it" in kilo(str(file), "--prometheus", prometheus, "--propose").stdout
    assert load_tiers(file)["gold"].timeout_ms == 1_850

    away = kilo(str(file), "--prometheus", "http://127.0.0.1:1")
    assert (away.returncode, "does not answer" in away.stderr) == (3, True)
