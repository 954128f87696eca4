"""``kilo gateway`` on real stage files and a real gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kilo.tenancy import RateLimit
from kilo.traffic.active import ActiveTenant, read_active
from tests.patience import until
from tests.runtime.traffic.support import ENVOY, Gateway, free_port, make_tenant

ROOT = Path(__file__).parents[3]
KILO = Path(sys.executable).with_name("kilo")


def kilo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(KILO), "gateway", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_stages_of_this_project_are_valid(stage: str) -> None:
    done = kilo("validate", str(ROOT / f"Pulumi.{stage}.yaml"), "--envoy", ENVOY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["valid"] is True
    assert json.loads(done.stdout)["tenants"] > 0


TIERS = """
  kilo:tiers:
    gold:
      limit: {requests_per_second: 5, burst: 10}
      timeout_ms: 100
      retries: 1
      objective: {availability_percent: 99, latency_threshold_ms: 50, latency_percent: 99}
      spans_per_second: 10
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML"),
        ("config: {}", "config.kilo:tenants: Field required"),
        ("config:\n  kilo:tenants: [{id: acme, tier: platinum}]" + TIERS, "config.kilo:tenants.0.tier"),
        ("config:\n  kilo:tenants: [{id: acme, tier: silver}]" + TIERS, "silver is not among kilo:tiers"),
        ("config:\n  kilo:tenants: [{id: a, tier: gold}, {id: a, tier: gold}]" + TIERS, "a is listed twice"),
        (
            "config:\n  kilo:tenants: [{id: a, tier: gold, retries: 9}]" + TIERS,
            "config.kilo:tenants.0.retries",
        ),
        ("config:\n  kilo:tenants: []" + TIERS, "tenants: empty"),
    ],
)
def test_mistake_is_one_line_that_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    done = kilo("validate", str(path), "--envoy", ENVOY)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_absent_file_and_absent_envoy(tmp_path: Path) -> None:
    assert kilo("validate", str(tmp_path / "none.yaml")).returncode == 2
    absent = kilo("validate", str(ROOT / "Pulumi.dev.yaml"), "--envoy", "no-such-envoy")
    assert (absent.returncode, "no-such-envoy: not found" in absent.stderr) == (3, True)


def test_show_tells_what_is_in_force(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(replicas=2)
    acme = make_tenant(
        "acme", next_weight_percent=5, retries=2, limit=RateLimit(requests_per_second=7, burst=20)
    )
    globex = make_tenant("globex", tier="bronze", timeout_ms=1500)
    gateway.start([globex, acme])
    expected = ActiveTenant("acme", "gold", 5, 10_000, 2, 3.5, 10)
    assert read_active(gateway.operations)[0] == expected

    gateway.swap([acme.model_copy(update={"next_weight_percent": 30}), globex])
    until(lambda: read_active(gateway.operations)[0].next_weight_percent == 30, "weight in force")

    done = kilo("show", gateway.operations, "--json")
    assert done.returncode == 0, done.stderr
    shown = {tenant["id"]: tenant for tenant in json.loads(done.stdout)}
    assert shown["acme"]["next_weight_percent"] == 30
    assert (shown["globex"]["tier"], shown["globex"]["timeout_ms"], shown["globex"]["retries"]) == (
        "bronze",
        1500,
        0,
    )
    assert "globex" in kilo("show", gateway.operations).stdout


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "http://["])
def test_show_of_no_gateway_is_unreachable(url: str) -> None:
    done = kilo("show", url.format(port=free_port()))
    assert done.returncode == 3, done.stderr
    assert "no gateway answers" in done.stderr
    assert "Traceback" not in done.stderr
