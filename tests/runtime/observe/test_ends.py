"""Pages that end with their cause, judged by the real promtool: first they fire, then they do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kilo.observe.rules import render_rules
from tests.runtime.observe.support import NAMESPACE, STAGE, promised, rules_for, run_rule_test
from tests.runtime.observe.test_burns import FAILED, OK

RULES = render_rules(STAGE, NAMESPACE)
STEP = "30s"
_DURATION = "envoy_gateway_request_duration_milliseconds"
_WHOSE = 'tenant="acme", version="stable"'


@dataclass(frozen=True)
class End:
    """Promtool's series, a value every half a minute: an alert fires at one time and is over at another."""

    alert: str
    series: dict[str, str]
    fires: str
    over: str


# A fault of half an hour, and then what mends it.
ENDS = {
    "the consumer is back": End(
        "ConsumerDown", {'consumer_events_pending{job="consumer"}': "0x10 _x50 0x60"}, "25m", "31m"
    ),
    # The first answer that is none of the outage's makes a series of its own, born at 1.
    "a tenant is served again": End(
        "TenantUnserved", {FAILED: "0+1x60 60x60", OK: "_x60 1+1x60"}, "29m", "33m"
    ),
    "a tenant asks no more": End("TenantUnserved", {FAILED: "0+1x60 60x120"}, "29m", "61m"),
    "a tenant waits no more": End(
        "TenantLatencyBurn",
        {
            f'{_DURATION}_bucket{{{_WHOSE}, le="300"}}': "0x60 0+100x60",
            f'{_DURATION}_bucket{{{_WHOSE}, le="10000"}}': "0+100x120",
            f"{_DURATION}_count{{{_WHOSE}}}": "0+100x120",
        },
        "29m",
        "59m",
    ),
    # What looks back for half an hour forgets as slowly.
    "a tenant that waited asks no more": End(
        "TenantLatencyBurn",
        {
            f'{_DURATION}_bucket{{{_WHOSE}, le="300"}}': "0x140",
            f'{_DURATION}_bucket{{{_WHOSE}, le="10000"}}': "0+100x60 6000x80",
            f"{_DURATION}_count{{{_WHOSE}}}": "0+100x60 6000x80",
        },
        "29m",
        "62m",
    ),
}


def firing(directory: Path, end: End, at: str, count: int) -> str:
    """What promtool says against ``count`` firing pages of the alert at a moment."""
    query = f'count(ALERTS{{alertname="{end.alert}", alertstate="firing", severity="page"}}) or vector(0)'
    given = {**promised(), **end.series}
    test: dict[str, Any] = {
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": at, "exp_samples": [{"labels": "{}", "value": count}]}
        ],
    }
    return run_rule_test(directory, rules_for(RULES, end.alert, STEP), test, STEP)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_page_ends_with_its_cause(end: End, tmp_path: Path) -> None:
    # Two burn rates page of latency: the fast one, 14.4, and 6.
    pages = 2 if end.alert == "TenantLatencyBurn" else 1
    assert firing(tmp_path, end, end.fires, pages) == ""
    assert firing(tmp_path, end, end.over, 0) == ""
