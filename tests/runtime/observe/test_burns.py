"""Burning budgets over hours and days, judged by the real promtool."""

from __future__ import annotations

from pathlib import Path

from kilo.observe.rules import render_rules
from tests.runtime.observe.support import (
    NAMESPACE,
    STAGE,
    promised,
    rules_for,
    run_rule_test,
)

RULES = render_rules(STAGE, NAMESPACE)
REQUESTS = 'envoy_gateway_requests_total{tenant="acme", version="stable", status="%d"}'
OK, FAILED, THROTTLED = REQUESTS % 200, REQUESTS % 503, REQUESTS % 429
RECORDS = {"groups": [group for group in RULES["groups"] if group["name"] == "kilo-tenant-records"]}
WHOSE = f'namespace="{NAMESPACE}", stage="{STAGE}"'


def burn_test(
    directory: Path,
    series: dict[str, str],
    alert: str,
    at: str,
    expected: list[tuple[str, str, str]],
    step: str = "5m",
) -> str:
    """Run a test at equal steps; ``expected`` are tenant, burn rate and severity of what fires."""
    name = f'ALERTS{{alertname="{alert}", alertstate="firing"'
    given = {**promised(), **series}
    test = {
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {
                "expr": f"{name}}}",
                "eval_time": at,
                "exp_samples": [
                    {
                        "labels": f'{name}, burn_rate="{rate}", severity="{severity}", '
                        f'tenant="{tenant}", {WHOSE}}}',
                        "value": 1,
                    }
                    for tenant, rate, severity in expected
                ],
            }
        ],
    }
    return run_rule_test(directory, rules_for(RULES, alert, step), test, step)


def firing(tenant: str, *rates: str) -> list[tuple[str, str, str]]:
    return [(tenant, rate, "page" if rate in {"14.4", "6"} else "ticket") for rate in rates]


class TestBurn:
    """Days of a steady share of bad requests, at five-minute steps of 1,000 requests."""

    def test_availability_over_three_days(self, tmp_path: Path) -> None:
        # acme and globex promise 99.9 %, initech 99 %.
        failed = {"acme": 8, "globex": 2, "initech": 8}
        series: dict[str, str] = {}
        for tenant, count in failed.items():
            series[OK.replace("acme", tenant)] = f"0+{1000 - count}x900"
            series[FAILED.replace("acme", tenant)] = f"0+{count}x900"
        expected = [*firing("acme", "1", "3", "6"), *firing("globex", "1")]
        assert burn_test(tmp_path, series, "TenantAvailabilityBurn", "3d", expected) == ""

    def test_latency_with_either_spelling_of_a_bucket(self, tmp_path: Path) -> None:
        name = "envoy_gateway_request_duration_milliseconds"
        series: dict[str, str] = {}
        for tenant, slow, edge in (("acme", 200, "300"), ("globex", 200, "300.0"), ("initech", 40, "1000")):
            labels = f'tenant="{tenant}", version="stable"'
            series[f'{name}_bucket{{{labels}, le="{edge}"}}'] = f"0+{1000 - slow}x500"
            series[f'{name}_bucket{{{labels}, le="10000"}}'] = f"0+{1000 - slow // 2}x500"
            series[f"{name}_count{{{labels}}}"] = "0+1000x500"
        every = ("1", "14.4", "3", "6")
        expected = [*firing("acme", *every), *firing("globex", *every)]
        assert burn_test(tmp_path, series, "TenantLatencyBurn", "8h", expected, "1m") == ""

    def test_one_failure_of_a_small_tenant_alerts_nobody(self, tmp_path: Path) -> None:
        series = {OK: "0+1x120", FAILED: "0x100 1x20"}
        assert burn_test(tmp_path, series, "TenantAvailabilityBurn", "8h40m", []) == ""

    def test_an_outage_pages_while_it_lasts(self, tmp_path: Path) -> None:
        series = {OK: "0+1000x60", FAILED: "0+100x24 2400x36"}
        during, after = firing("acme", "14.4", "3", "6"), firing("acme", "1", "3")
        assert burn_test(tmp_path, series, "TenantAvailabilityBurn", "1h55m", during) == ""
        assert burn_test(tmp_path, series, "TenantAvailabilityBurn", "3h20m", after) == ""


class TestRecords:
    def test_throttled_requests_dilute_no_error_ratio(self, tmp_path: Path) -> None:
        test = {
            "input_series": [
                {"series": OK, "values": "0+90x20"},
                {"series": FAILED, "values": "0+10x20"},
                {"series": THROTTLED, "values": "0+900x20"},
            ],
            "promql_expr_test": [
                {
                    "expr": name,
                    "eval_time": "10m",
                    "exp_samples": [{"labels": f'{name}{{tenant="acme", {WHOSE}}}', "value": value}],
                }
                for name, value in {
                    "tenant:error_ratio:rate5m": 0.1,
                    "tenant:throttled_ratio:rate5m": 0.9,
                }.items()
            ],
        }
        assert run_rule_test(tmp_path, RECORDS, test, "30s") == ""

    def test_tenant_without_traffic_has_no_ratio_rather_than_a_wrong_one(self, tmp_path: Path) -> None:
        test = {
            "input_series": [{"series": OK, "values": "5x20"}, {"series": FAILED, "values": "5x20"}],
            "promql_expr_test": [
                {"expr": "tenant:error_ratio:rate5m", "eval_time": "10m", "exp_samples": []},
                {
                    "expr": "tenant:errors:rate5m",
                    "eval_time": "10m",
                    "exp_samples": [
                        {"labels": f'tenant:errors:rate5m{{tenant="acme", {WHOSE}}}', "value": 0}
                    ],
                },
            ],
        }
        assert run_rule_test(tmp_path, RECORDS, test, "30s") == ""

    def test_a_changed_threshold_makes_no_request_slow(self, tmp_path: Path) -> None:
        """Of many requests so far, a tenth was slower than the old threshold, and none than the new one."""
        name, edge = (
            "envoy_gateway_request_duration_milliseconds",
            "tenant_objective_latency_edge_milliseconds",
        )
        test = {
            "input_series": [
                {"series": f'{name}_count{{tenant="acme"}}', "values": "100000+100x80"},
                {"series": f'{name}_bucket{{tenant="acme", le="300"}}', "values": "90000+90x80"},
                {"series": f'{name}_bucket{{tenant="acme", le="500"}}', "values": "100000+100x80"},
                {"series": f'{edge}{{tenant="acme", le="300"}}', "values": "300x20 stale"},
                {"series": f'{edge}{{tenant="acme", le="500"}}', "values": "_x21 500x59"},
            ],
            "promql_expr_test": [
                {
                    "expr": "round(max_over_time(tenant:slow:rate5m[30m]), 0.001)",
                    "eval_time": "35m",
                    "exp_samples": [{"labels": f'{{tenant="acme", {WHOSE}}}', "value": 0.333}],
                }
            ],
        }
        assert run_rule_test(tmp_path, RECORDS, test, "30s") == ""

    def test_a_month_counts_from_its_first_hour(self, tmp_path: Path) -> None:
        """Promtool begins on 1 January: on 1 February the share of failures is that of February alone."""
        groups = [group for group in RULES["groups"] if group["name"] == "kilo-tenant-month"]
        spent = "tenant:errors:increase5m", f"0x{20 * 24 - 1} 1x{13 * 24}"
        served = "tenant:served:increase5m", f"100x{34 * 24}"
        budget = "tenant:availability_budget:ratio", f"0.001x{34 * 24}"
        name = "tenant:availability_budget_remaining:ratio_month"
        # From the twentieth day on one in a hundred fails, which is ten times what the budget has.
        expected = {"30d": 1 - 1_000 * 241 / 72_100, "31d6h": 1 - 10, "33d": 1 - 10}
        test = {
            "input_series": [
                {"series": f'{series}{{tenant="acme", stage="{STAGE}"}}', "values": values}
                for series, values in (spent, served, budget)
            ],
            "promql_expr_test": [
                {
                    "expr": f"round({name}, 0.01)",
                    "eval_time": at,
                    "exp_samples": [{"labels": f'{{tenant="acme", {WHOSE}}}', "value": round(value, 2)}],
                }
                for at, value in expected.items()
            ],
        }
        groups[0] = {**groups[0], "interval": "6h"}
        assert run_rule_test(tmp_path, {"groups": groups}, test, "1h") == ""
