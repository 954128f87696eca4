"""When a tenant's objective alerts: a burning budget, one that will not last, and one that is gone.

Burns are the multi-window, multi-burn-rate ones of the Google SRE Workbook, chapter 5
(https://sre.google/workbook/alerting-on-slos/), over 30 days: a page at 14.4 and 6 times the rate
that would use the budget up in exactly that time, a ticket at 3 and 1 times. The short window lets
an alert end soon after its cause.

A tenant with little traffic would be paged for one failed request. So a burn needs at least
:data:`MINIMUM_BAD_REQUESTS` in the long window; and since that would hide a small tenant's total
outage, ``TenantUnserved`` looks for exactly that.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilo.observe import metrics
from kilo.observe.alerts import Alert, Severity
from kilo.observe.objectives import AVAILABILITY, BUDGET_DAYS, KINDS, LATENCY, RAW_WINDOWS, Kind

MINIMUM_BAD_REQUESTS = 10
THROTTLED_SHARE = 0.01
EXHAUSTION_DAYS = 3
"""A ticket for a budget that will be used up by then."""
_CEILING = 0.95
"""A lax objective times a high burn rate exceeds all there is; a near-total failure is enough then."""


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate, the windows in which it must show, and whom it calls."""

    factor: float
    long: str
    short: str
    severity: Severity
    lasting: str


BURNS = (
    Burn(14.4, "1h", "5m", "page", "2m"),
    Burn(6, "6h", "30m", "page", "15m"),
    Burn(3, "1d", "2h", "ticket", "1h"),
    Burn(1, "3d", "6h", "ticket", "3h"),
)


def tenant_alerts() -> list[Alert]:
    """Alert on budgets, on throttling and on tenants that nothing serves."""
    alerts = [_burn_alert("TenantAvailabilityBurn", AVAILABILITY, burn) for burn in BURNS]
    alerts += [_burn_alert("TenantLatencyBurn", LATENCY, burn) for burn in BURNS]
    alerts += [_exhausting(kind) for kind in KINDS]
    alerts += [_spent(kind, window) for kind in KINDS for window in ("30d", "month")]
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
        # Without promises no budget can burn: every alert on them is blind.
        Alert(
            "ObjectivesUnknown",
            f"absent({metrics.OBJECTIVE_BUDGET.name})",
            "page",
            "Nothing says what tenants are promised",
            "15m",
        ),
    ]
    return alerts


def _burn_alert(name: str, kind: Kind, burn: Burn) -> Alert:
    threshold = f"clamp_max({burn.factor:g} * {kind.budget}, {_CEILING})"
    query = (
        f"{kind.ratio}:rate{burn.long} > on (tenant) {threshold} "
        f"and on (tenant) {kind.ratio}:rate{burn.short} > on (tenant) {threshold} "
        f"and on (tenant) {_bad(kind, burn.long)} >= {MINIMUM_BAD_REQUESTS}"
    )
    summary = (
        f"{{{{ $labels.tenant }}}} spends its budget {burn.factor:g} times too fast: "
        f"{{{{ $value | humanizePercentage }}}} of requests {kind.what} over {burn.long}"
    )
    return Alert(name, query, burn.severity, summary, burn.lasting, {"burn_rate": f"{burn.factor:g}"})


def _bad(kind: Kind, window: str) -> str:
    if window in RAW_WINDOWS:
        return f"{kind.bad}:rate{window} * {_SECONDS[window]}"
    return f"{kind.bad}:increase{window}"


_SECONDS = {"5m": 300, "30m": 1_800, "1h": 3_600}


def _exhausting(kind: Kind) -> Alert:
    return Alert(
        "TenantBudgetExhausting",
        f"{kind.exhaustion} < {EXHAUSTION_DAYS * 86_400} and on (tenant) {kind.remaining('30d')} > 0 "
        f"and on (tenant) {_bad(kind, '6h')} >= {MINIMUM_BAD_REQUESTS}",
        "ticket",
        f"At the pace of six hours, {{{{ $labels.tenant }}}}'s {kind.name} budget is used up in "
        "{{ $value | humanizeDuration }}",
        "30m",
        {"objective": kind.name},
    )


def _spent(kind: Kind, window: str) -> Alert:
    said = f"{BUDGET_DAYS} days" if window == "30d" else "this month"
    return Alert(
        "TenantBudgetSpent",
        f"{kind.remaining(window)} <= 0 and on (tenant) {_bad(kind, window)} >= {MINIMUM_BAD_REQUESTS}",
        "ticket",
        f"{{{{ $labels.tenant }}}} has no {kind.name} budget left for {said}: only mending is released",
        "15m",
        {"objective": kind.name, "window": window},
    )
