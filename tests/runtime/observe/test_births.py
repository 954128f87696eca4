"""Counters that are born with their first event: seen, once, and not again when Prometheus was away."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilo.observe.rules import render_rules
from tests.runtime.observe.support import NAMESPACE, STAGE, rules_for, run_rule_test

RULES = render_rules(STAGE, NAMESPACE)
POD = 'pod="a", instance="a:1"'
BORN = {
    "DeadLetters": f'dead_letters_total{{kind="paid", tenant="acme", {POD}}}',
    "FleDecryptFailures": f'fle_decrypt_failures_total{{reason="tag", tenant="acme", {POD}}}',
    "MirrorErrors": f'registry_mirror_errors_total{{loop="queue", {POD}}}',
    "GatewayConfigRejected": f"envoy_cluster_manager_cds_update_rejected{{{POD}}}",
}


def firing(directory: Path, alert: str, at: str, series: dict[str, str], count: int) -> str:
    test = {
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": count}] if count else [],
            }
        ],
    }
    return run_rule_test(directory, rules_for(RULES, alert, "30s"), test, "30s")


@pytest.mark.parametrize(("alert", "series"), BORN.items(), ids=BORN)
def test_the_first_event_of_a_running_process_alerts(tmp_path: Path, alert: str, series: str) -> None:
    given = {series: "_x80 7x120", f"up{{{POD}}}": "1x200"}
    assert firing(tmp_path, alert, "39m", given, 0) == ""
    assert firing(tmp_path, alert, "42m", given, 1) == ""
    assert firing(tmp_path, alert, "80m", given, 0) == ""


@pytest.mark.parametrize(("alert", "series"), BORN.items(), ids=BORN)
def test_so_does_what_a_new_process_was_born_with(tmp_path: Path, alert: str, series: str) -> None:
    gateway = alert.startswith("Gateway")
    started = (
        (f"envoy_server_uptime{{{POD}}}", "_x80 5+30x120")
        if gateway
        else (f"process_start_time_seconds{{{POD}}}", "_x80 2395x120")
    )
    given = {series: "_x80 7x120", f"up{{{POD}}}": "_x80 1x120", started[0]: started[1]}
    assert firing(tmp_path, alert, "42m", given, 1) == ""
    assert firing(tmp_path, alert, "80m", given, 0) == ""


@pytest.mark.parametrize(("alert", "series"), BORN.items(), ids=BORN)
def test_what_is_old_alerts_nobody_after_an_hour_without_prometheus(
    tmp_path: Path, alert: str, series: str
) -> None:
    gateway = alert.startswith("Gateway")
    started = (
        (f"envoy_server_uptime{{{POD}}}", "9000x80 _x120 15000+30x100")
        if gateway
        else (f"process_start_time_seconds{{{POD}}}", "0x80 _x120 0x100")
    )
    given = {series: "7x80 _x120 7x100", f"up{{{POD}}}": "1x80 _x120 1x100", started[0]: started[1]}
    for at in ("101m", "105m", "111m", "125m"):
        assert firing(tmp_path, alert, at, given, 0) == ""
