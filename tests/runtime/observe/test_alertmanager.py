"""Alert routes, judged by the real amtool and a real Alertmanager's configuration check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kilo.observe.alertmanager import render_routes
from kilo.observe.rules import every_alert, render_rules
from sandbox import toolchain
from sandbox.cluster.alert_routes import alertmanager_yml
from tests.runtime.observe.support import NAMESPACE, STAGE

ROUTES = render_routes("alert-webhook")


def amtool(directory: Path, *arguments: str) -> str:
    config = directory / "alertmanager.yml"
    config.write_text(alertmanager_yml({(NAMESPACE, "kilo"): ROUTES}, lambda *_: "http://127.0.0.1:9/"))
    command = [str(toolchain.path("alertmanager").with_name("amtool")), *arguments, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alertmanager_accepts_the_routes(tmp_path: Path) -> None:
    assert "2 receivers" in amtool(tmp_path, "check-config")
    assert "4 inhibit rules" in amtool(tmp_path, "check-config")


def test_pages_have_a_route_of_their_own(tmp_path: Path) -> None:
    tree = amtool(tmp_path, "config", "routes", "show", "--config.file")
    assert re.search(r'severity="page"', tree)


@pytest.mark.parametrize("rule", ROUTES["inhibitRules"][1:], ids=lambda rule: rule["sourceMatch"][0]["value"])
def test_inhibition_names_alerts_that_exist(rule: dict[str, Any]) -> None:
    names = {alert.name for alert in every_alert()}
    assert rule["sourceMatch"][0]["value"] in names
    for pattern in rule["targetMatch"][0]["value"].split("|"):
        assert [name for name in names if re.fullmatch(pattern, name)], pattern


def test_every_alert_reaches_the_receiver_and_those_of_another_stage_do_not(tmp_path: Path) -> None:
    alerts = [rule for group in render_rules(STAGE, NAMESPACE)["groups"] for rule in group["rules"]]
    ways = {
        amtool_route(tmp_path, {**rule["labels"], "alertname": rule["alert"]})
        for rule in alerts
        if "alert" in rule
    }
    assert ways == {f"{NAMESPACE}/kilo/webhook"}
    assert amtool_route(tmp_path, {"alertname": "OutboxLag", "severity": "page"}) == "null"
    assert amtool_route(tmp_path, {"alertname": "OutboxLag", "namespace": "other"}) == "null"


def amtool_route(directory: Path, labels: dict[str, str]) -> str:
    # The configuration's file stands last, as an option of its own.
    given = [f"{name}={value}" for name, value in labels.items()]
    return amtool(directory, "config", "routes", "test", *given, "--config.file").strip()
