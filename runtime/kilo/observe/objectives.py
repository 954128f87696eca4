"""Per-tenant service level objectives: what is recorded, and when a burning budget alerts.

Rate, errors, duration and saturation of each tenant are recorded from what the gateway counts.
Tenants with the same objective share one term of a rule, with all their names in its selector: the
number of rules is the same for one tenant and for a thousand.

Alerts are the multi-window, multi-burn-rate ones of the Google SRE Workbook, chapter 5
(https://sre.google/workbook/alerting-on-slos/), over 30 days: a page at 14.4 and 6 times the rate
that would use the budget up in exactly that time, a ticket at 3 and 1 times. The short window lets
an alert end soon after its cause.

A tenant with little traffic would be paged for one failed request. So a burn needs at least
:data:`MINIMUM_BAD_REQUESTS` in the long window; and since that would hide a small tenant's total
outage, ``TenantUnserved`` looks for exactly that.

Requests refused with 429 count neither as served nor as failed: ``TenantThrottled`` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kilo.observe import foreign
from kilo.observe.alerts import Alert, Record, Severity
from kilo.tenancy import Tenant

MINIMUM_BAD_REQUESTS = 10
THROTTLED_SHARE = 0.01
_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_SECONDS = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "3d": 259_200}


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate, the windows in which it must show, and whom it calls."""

    factor: float
    long: str
    short: str
    severity: Severity
    lasting: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes a request bad, and the records that count it."""

    ratio: str
    count: str
    what: str


_ERRORS = Kind("tenant:error_ratio", "tenant:errors", "failing")
_SLOWNESS = Kind("tenant:slow_ratio", "tenant:slow", "too slow")
BURNS = (
    Burn(14.4, "1h", "5m", "page", "2m"),
    Burn(6, "6h", "30m", "page", "15m"),
    Burn(3, "1d", "2h", "ticket", "1h"),
    Burn(1, "3d", "6h", "ticket", "3h"),
)


def tenant_records(tenants: Sequence[Tenant]) -> list[Record]:
    """Record rate, errors, duration and saturation of every tenant."""
    records: list[Record] = []
    for window in _WINDOWS:
        records.extend(_window_records(tenants, window))
    requests, bucket = foreign.GATEWAY_REQUESTS.name, foreign.GATEWAY_DURATION_BUCKET.name
    records += [
        Record(
            f"tenant:request_duration_milliseconds:p{quantile}_5m",
            f'histogram_quantile(0.{quantile}, sum by (tenant, le) (rate({bucket}{{tenant!=""}}[5m])))',
        )
        for quantile in (50, 99)
    ]
    records += [
        Record("tenant:throttled_ratio:rate5m", _share(requests, 'status="429"', "5m", "tenant")),
        Record(
            "tenant_version:requests:rate5m",
            f'sum by (tenant, version) (rate({requests}{{version!=""}}[5m]))',
        ),
        Record(
            "tenant_version:error_ratio:rate5m", _share(requests, 'status=~"5.."', "5m", "tenant, version")
        ),
    ]
    records += [
        Record(
            "tenant:limit_utilisation:ratio_rate5m",
            _either(
                f"tenant:requests:rate5m{{{names}}} / {limit}"
                for limit, names in _grouped(tenants, lambda tenant: tenant.limit.requests_per_second)
            ),
        ),
        Record(
            "tenant:availability_budget_remaining:ratio_30d",
            _either(
                f"1 - sum_over_time(tenant:errors:rate5m{{{names}}}[30d]) "
                f"/ sum_over_time(tenant:served:rate5m{{{names}}}[30d]) / {budget}"
                for budget, names in _grouped(tenants, _availability_budget)
            ),
        ),
    ]
    return records


def tenant_alerts(tenants: Sequence[Tenant]) -> list[Alert]:
    """Alert on burning budgets, on throttling and on tenants that nothing serves."""
    alerts = [
        _burn_alert("TenantAvailabilityBurn", _ERRORS, _grouped(tenants, _availability_budget), burn)
        for burn in BURNS
    ]
    alerts += [
        _burn_alert("TenantLatencyBurn", _SLOWNESS, _grouped(tenants, _latency_budget), burn)
        for burn in BURNS
    ]
    alerts += [
        Alert(
            "TenantUnserved",
            "tenant:error_ratio:rate30m == 1 and on (tenant) tenant:errors:rate30m * 1800 >= 3",
            "page",
            "Every request of {{ $labels.tenant }} has failed for half an hour",
        ),
        Alert(
            "TenantThrottled",
            f"tenant:throttled_ratio:rate5m > {THROTTLED_SHARE}",
            "ticket",
            "{{ $labels.tenant }} has {{ $value | humanizePercentage }} of its requests refused with 429",
            "10m",
        ),
        Alert(
            "TenantNearLimit",
            "tenant:limit_utilisation:ratio_rate5m > 0.9",
            "ticket",
            "{{ $labels.tenant }} uses {{ $value | humanizePercentage }} of its request limit",
            "30m",
        ),
    ]
    return alerts


def _window_records(tenants: Sequence[Tenant], window: str) -> list[Record]:
    requests, bucket = foreign.GATEWAY_REQUESTS.name, foreign.GATEWAY_DURATION_BUCKET.name
    count = foreign.GATEWAY_DURATION_COUNT.name
    served = f'sum by (tenant) (rate({requests}{{tenant!="", status!="429"}}[{window}]))'
    failed = f'sum by (tenant) (rate({requests}{{tenant!="", status=~"5.."}}[{window}]))'
    records = [
        Record(
            f"tenant:requests:rate{window}", f'sum by (tenant) (rate({requests}{{tenant!=""}}[{window}]))'
        ),
        Record(f"tenant:served:rate{window}", served),
        # A tenant without a failure has no such series yet; its errors are 0, not unknown.
        Record(f"tenant:errors:rate{window}", f"{failed} or 0 * {served}"),
        Record(
            f"tenant:error_ratio:rate{window}",
            _ratio(f"tenant:errors:rate{window}", f"tenant:served:rate{window}"),
        ),
    ]
    measured = f'sum by (tenant) (rate({count}{{tenant!=""}}[{window}]))'
    # Prometheus 3 writes a whole bucket's edge with ".0", Prometheus 2 without.
    fast = _either(
        f'sum by (tenant) (rate({bucket}{{{names}, le=~"{threshold}([.]0)?"}}[{window}]))'
        for threshold, names in _grouped(tenants, lambda tenant: tenant.objective.latency_threshold_ms)
    )
    return [
        *records,
        Record(f"tenant:slow:rate{window}", f"{measured} - ({fast})"),
        Record(f"tenant:slow_ratio:rate{window}", _ratio(f"tenant:slow:rate{window}", measured)),
    ]


def _burn_alert(name: str, kind: Kind, budgets: Iterable[tuple[float, str]], burn: Burn) -> Alert:
    many = f"{kind.count}:rate{burn.long} * {_SECONDS[burn.long]} >= {MINIMUM_BAD_REQUESTS}"
    query = _either(
        f"{kind.ratio}:rate{burn.long}{{{names}}} > {limit} "
        f"and on (tenant) {kind.ratio}:rate{burn.short}{{{names}}} > {limit} "
        f"and on (tenant) {many}"
        for limit, names in ((_threshold(budget, burn), names) for budget, names in budgets)
    )
    summary = (
        f"{{{{ $labels.tenant }}}} spends its budget {burn.factor:g} times too fast: "
        f"{{{{ $value | humanizePercentage }}}} of requests {kind.what} over {burn.long}"
    )
    return Alert(name, query, burn.severity, summary, burn.lasting, {"burn_rate": f"{burn.factor:g}"})


def _threshold(budget: float, burn: Burn) -> float:
    # A lax objective times a high burn rate exceeds all there is; a near-total failure is enough then.
    return round(min(budget * burn.factor, 0.95), 9)


def _share(metric: str, matcher: str, window: str, labels: str) -> str:
    total = f'sum by ({labels}) (rate({metric}{{tenant!=""}}[{window}]))'
    part = f'sum by ({labels}) (rate({metric}{{tenant!="", {matcher}}}[{window}]))'
    return _ratio(f"({part} or 0 * {total})", total)


def _ratio(part: str, whole: str) -> str:
    # Where nothing happened, 0/0 is not a number; the comparison drops it.
    return f"{part} / {whole} >= 0"


def _either(queries: Iterable[str]) -> str:
    return " or ".join(queries)


def _availability_budget(tenant: Tenant) -> float:
    return round(1 - tenant.objective.availability_percent / 100, 9)


def _latency_budget(tenant: Tenant) -> float:
    return round(1 - tenant.objective.latency_percent / 100, 9)


def _grouped(tenants: Sequence[Tenant], key: Callable[[Tenant], float]) -> list[tuple[float, str]]:
    """Group tenants by a setting; give each value with a selector of its tenants."""
    groups: dict[float, list[str]] = {}
    for tenant in tenants:
        groups.setdefault(key(tenant), []).append(tenant.id)
    return [(value, f'tenant=~"{"|".join(sorted(groups[value]))}"') for value in sorted(groups)]
