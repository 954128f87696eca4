"""The collector's configuration: bounded, and read by the real collector where one is built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kilo.observe.collector import CollectorSettings, render_collector
from sandbox import toolchain
from sandbox.toolchain.catalogue import missing
from tests.runtime.observe.support import make_tenant

TENANTS = [make_tenant("acme"), make_tenant("globex", spans_per_second=7)]


def test_every_tenant_has_its_allowance_for_all_services() -> None:
    rendered = render_collector(TENANTS, CollectorSettings(services=3))
    policies = {one["name"]: one for one in rendered["processors"]["tail_sampling"]["policies"]}
    limits = {
        name: one["and"]["and_sub_policy"][1]["rate_limiting"]["spans_per_second"]
        for name, one in policies.items()
    }
    assert limits["tenant-globex"] == 21
    assert list(policies)[:2] == ["failed", "slow"], "kept before all others"
    # What has no tenant of the stage matches nothing, and is dropped.
    assert set(policies) == {"failed", "slow", "tenant-acme", "tenant-globex"}


def test_memory_is_refused_before_anything_is_held() -> None:
    rendered = render_collector(TENANTS, CollectorSettings(memory_mebibytes=200))
    assert rendered["processors"]["memory_limiter"]["limit_mib"] == 160
    assert rendered["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"


@pytest.mark.parametrize("backend", [None, "https://otlp.example:4318"])
def test_the_collector_reads_it(backend: str | None, tmp_path: Path) -> None:
    if missing("otelcol"):
        pytest.skip("the collector is not built here: kilo toolchain otelcol")
    settings = CollectorSettings(backend_url=backend, file=str(tmp_path / "traces.jsonl"))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(render_collector(TENANTS, settings, bind="127.0.0.1")), encoding="utf-8")
    command = [str(toolchain.path("otelcol")), "validate", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
