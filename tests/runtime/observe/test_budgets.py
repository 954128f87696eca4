"""Budgets that are used up, or will be soon, judged by the real promtool."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.observe.support import promised, rules_for, run_rule_test
from tests.runtime.observe.test_burns import FAILED, OK, RULES, WHOSE

_FINE = 864
"""Steps of five minutes without a failure: three days."""


def fires(directory: Path, alert: str, series: dict[str, str], at: str, *labels: str) -> str:
    """Run a test of 1,000 requests a step; ``labels`` are those of what fires."""
    name = f'ALERTS{{alertname="{alert}", alertstate="firing"'
    samples = [
        {"labels": f'{name}, objective="availability", severity="ticket", {each}, {WHOSE}}}', "value": 1}
        for each in labels
    ]
    given = {**promised(), **series}
    test = {
        "input_series": [{"series": each, "values": values} for each, values in given.items()],
        "promql_expr_test": [{"expr": f"{name}}}", "eval_time": at, "exp_samples": samples}],
    }
    return run_rule_test(directory, rules_for(RULES, alert, "5m"), test, "5m")


def requests(failed: int, tenants: tuple[str, ...] = ("acme", "initech")) -> dict[str, str]:
    """Three days in which all is well, and then of 1,000 requests ``failed``."""
    begun = 1000 * _FINE
    return {
        **{OK.replace("acme", each): f"0+1000x{_FINE} {begun}+{1000 - failed}x200" for each in tenants},
        **{FAILED.replace("acme", each): f"0x{_FINE} {failed}+{failed}x200" for each in tenants},
    }


def test_a_budget_that_lasts_no_three_days_is_told_of_before_it_is_spent(tmp_path: Path) -> None:
    """Of 99.9 %, 0.6 of the budget is spent after six hours, at 8 times the pace. initech promises 99 %."""
    assert fires(tmp_path, "TenantBudgetExhausting", requests(8), "78h", 'tenant="acme"') == ""


def test_a_pace_that_lasts_longer_is_not_told_of(tmp_path: Path) -> None:
    """Twice too fast, with 0.85 left: that is 12 days."""
    assert fires(tmp_path, "TenantBudgetExhausting", requests(2), "78h") == ""


def test_a_spent_budget_is_told_of_for_thirty_days_and_for_the_month(tmp_path: Path) -> None:
    """Half a day at 0.8 %: 1.14 of what acme may. What is spent is not exhausting too."""
    told = [f'tenant="acme", window="{window}"' for window in ("30d", "month")]
    assert fires(tmp_path, "TenantBudgetSpent", requests(8), "84h", *told) == ""
    assert fires(tmp_path, "TenantBudgetExhausting", requests(8), "86h") == ""


def test_a_budget_with_something_left_is_not_spent(tmp_path: Path) -> None:
    assert fires(tmp_path, "TenantBudgetSpent", requests(8), "78h") == ""
