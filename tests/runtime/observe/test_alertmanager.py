"""Alert routes, judged by the real amtool and a real Alertmanager's configuration check."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kilo.observe.alertmanager import render_routes
from kilo.observe.rules import every_alert
from sandbox import toolchain
from tests.runtime.observe.support import TENANTS

ROUTES = render_routes("alert-webhook")


def as_operator(value: Any, key: str = "") -> Any:
    """Turn the custom resource into alertmanager.yml, as the Prometheus operator does."""
    names = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers", "matchers": "matchers"}
    if key in names:
        return [f'{entry["name"]}{entry["matchType"]}"{entry["value"]}"' for entry in value]
    if isinstance(value, list):
        return [as_operator(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for name, entry in value.items():
        if name == "urlSecret":
            result["url"] = "http://127.0.0.1:9/"
        else:
            result[names.get(name) or re.sub("([A-Z])", r"_\1", name).lower()] = as_operator(entry, name)
    return result


def amtool(directory: Path, *arguments: str) -> str:
    config = directory / "alertmanager.yml"
    config.write_text(json.dumps(as_operator(ROUTES)), encoding="utf-8")
    command = [str(toolchain.path("alertmanager").with_name("amtool")), *arguments, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alertmanager_accepts_the_routes(tmp_path: Path) -> None:
    assert "1 receivers" in amtool(tmp_path, "check-config")
    assert "4 inhibit rules" in amtool(tmp_path, "check-config")


def test_pages_have_a_route_of_their_own(tmp_path: Path) -> None:
    tree = amtool(tmp_path, "config", "routes", "show", "--config.file")
    assert re.search(r'severity="page"', tree)


@pytest.mark.parametrize("rule", ROUTES["inhibitRules"][1:], ids=lambda rule: rule["sourceMatch"][0]["value"])
def test_inhibition_names_alerts_that_exist(rule: dict[str, Any]) -> None:
    names = {alert.name for alert in every_alert(TENANTS)}
    assert rule["sourceMatch"][0]["value"] in names
    for pattern in rule["targetMatch"][0]["value"].split("|"):
        assert [name for name in names if re.fullmatch(pattern, name)], pattern
