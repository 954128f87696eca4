"""What is recorded of each tenant: rate, errors, duration and saturation, and how its budgets stand.

No rule names a tenant. What a tenant is promised is a series of its own (:mod:`kilo.slo.objectives`) that
rules join by tenant, so there are as many rules, of as many bytes, for one tenant as for ten thousand.

Counters of the gateway are read over an hour at most. Every five minutes their increase is recorded, and
longer windows are sums of that: three days are 864 samples a tenant, not 17,280 a pod, version and status.
What Prometheus did not scrape is missing in those sums on both sides of a ratio.

Of the latency histogram only the bucket at a tenant's threshold matters. What lies beyond it is recorded as a
counter of its own, a series a pod as before, so that resets are still seen.

Requests refused with 429 count neither as served nor as failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilo.observe import foreign, metrics
from kilo.observe.alerts import Record

RAW_WINDOWS = ("5m", "30m", "1h")
SUMMED_WINDOWS = ("2h", "6h", "1d", "3d")
STEP = "5m"
STEP_SECONDS = 300
BUDGET_DAYS = 30
_PROMISE_KEPT = "1h"
"""For how long a promise stands that nobody exports any more."""
_SLOW = "tenant_pod:slow:total"
_MONTH_START = "stage:month_start:timestamp_seconds"


@dataclass(frozen=True, slots=True)
class Kind:
    """An objective: what makes a request bad, and the names of its records."""

    name: str
    """The label ``objective`` of the promised budget, and the middle of the records of a budget."""
    ratio: str
    bad: str
    total: str
    what: str

    @property
    def budget(self) -> str:
        """The record of the share of requests that may be bad."""
        return f"tenant:{self.name}_budget:ratio"

    def remaining(self, window: str) -> str:
        """The record of the share of the budget that is left in ``window``: ``30d`` or ``month``."""
        return f"tenant:{self.name}_budget_remaining:ratio_{window}"

    def burn(self, window: str) -> str:
        """The record of how many times faster than allowed the budget is used."""
        return f"tenant:{self.name}_burn:rate{window}"

    @property
    def exhaustion(self) -> str:
        """The record of the seconds until the rolling budget is used up at the burn of six hours."""
        return f"tenant:{self.name}_budget_exhaustion:seconds"


AVAILABILITY = Kind("availability", "tenant:error_ratio", "tenant:errors", "tenant:served", "failing")
LATENCY = Kind("latency", "tenant:slow_ratio", "tenant:slow", "tenant:measured", "too slow")
KINDS = (AVAILABILITY, LATENCY)


def fast_records() -> list[Record]:
    """What is read from counters, every thirty seconds."""
    requests, bucket = foreign.GATEWAY_REQUESTS.name, foreign.GATEWAY_DURATION_BUCKET.name
    edges, limit = metrics.OBJECTIVE_LATENCY_EDGE.name, metrics.TENANT_LIMIT.name
    records = [
        Record(
            kind.budget,
            f"max by (tenant) (last_over_time({metrics.OBJECTIVE_BUDGET.name}"
            f'{{objective="{kind.name}"}}[{_PROMISE_KEPT}]))',
        )
        for kind in KINDS
    ]
    records.append(
        # Keeps the edge as a label: a changed threshold begins a new counter and makes none jump.
        Record(
            _SLOW,
            f'-(({bucket}{{tenant!=""}} and on (tenant, le) last_over_time({edges}[{_PROMISE_KEPT}]))'
            f" - ignoring (le) group_left () {foreign.GATEWAY_DURATION_COUNT.name})",
        )
    )
    for window in RAW_WINDOWS:
        records += _window(window, "rate", "rate")
    records += [
        Record("tenant:requests:rate5m", f'sum by (tenant) (rate({requests}{{tenant!=""}}[5m]))'),
        *(
            Record(
                f"tenant:request_duration_milliseconds:p{quantile}_5m",
                f'histogram_quantile(0.{quantile}, sum by (tenant, le) (rate({bucket}{{tenant!=""}}[5m])))',
            )
            for quantile in (50, 99)
        ),
        Record("tenant:throttled_ratio:rate5m", _share(requests, 'status="429"', "5m", "tenant")),
        Record(
            "tenant_version:requests:rate5m",
            f'sum by (tenant, version) (rate({requests}{{version!=""}}[5m]))',
        ),
        Record(
            "tenant_version:error_ratio:rate5m", _share(requests, 'status=~"5.."', "5m", "tenant, version")
        ),
        Record(
            "tenant:limit_utilisation:ratio_rate5m",
            "tenant:requests:rate5m "
            f"/ on (tenant) max by (tenant) (last_over_time({limit}[{_PROMISE_KEPT}]))",
        ),
    ]
    return records


def slow_records() -> list[Record]:
    """What is summed from five-minute steps, every five minutes."""
    records = [
        Record(name.replace(":rate", ":increase"), query)
        for name, query in ((record.name, record.query) for record in _counts(STEP, "increase", "increase"))
    ]
    for window in SUMMED_WINDOWS:
        for kind in KINDS:
            records += [
                Record(f"{part}:increase{window}", f"sum_over_time({part}:increase{STEP}[{window}])")
                for part in (kind.bad, kind.total)
            ]
            records.append(
                Record(
                    f"{kind.ratio}:rate{window}",
                    _ratio(f"{kind.bad}:increase{window}", f"{kind.total}:increase{window}"),
                )
            )
    period = BUDGET_DAYS * 86_400
    for kind in KINDS:
        records += [
            Record(f"{part}:increase30d", f"sum_over_time({part}:increase{STEP}[{BUDGET_DAYS}d])")
            for part in (kind.bad, kind.total)
        ]
        records += [
            _remaining(kind, "30d"),
            *(
                Record(kind.burn(window), f"{kind.ratio}:rate{window} / on (tenant) {kind.budget}")
                for window in ("1h", "6h", "1d")
            ),
            # At the present pace; where nothing burns there is no such moment and no series.
            Record(
                kind.exhaustion,
                f"clamp_min({kind.remaining('30d')}, 0) * {period} / on (tenant) ({kind.burn('6h')} > 0)",
            ),
        ]
    return records


def month_records() -> list[Record]:
    """How budgets stand since the first of the calendar month (UTC), to the last full hour."""
    # A range has a fixed length: hours that end before the month are dropped from the longest of all months.
    inside = f"vector(time()) > on () {_MONTH_START} @ end()"
    records = [
        Record(_MONTH_START, "vector(time()) - 86400 * (day_of_month() - 1) - 3600 * hour() - 60 * minute()")
    ]
    for kind in KINDS:
        records += [
            Record(
                f"{part}:increasemonth",
                f"sum_over_time((sum_over_time({part}:increase{STEP}[1h]) and on () ({inside}))[31d:1h])",
            )
            for part in (kind.bad, kind.total)
        ]
        records.append(_remaining(kind, "month"))
    return records


def _remaining(kind: Kind, window: str) -> Record:
    spent = f"{kind.bad}:increase{window} / {kind.total}:increase{window}"
    return Record(kind.remaining(window), f"1 - {spent} / on (tenant) {kind.budget}")


def _window(window: str, function: str, suffix: str) -> list[Record]:
    return [
        *_counts(window, function, suffix),
        *(
            Record(
                f"{kind.ratio}:rate{window}",
                _ratio(f"{kind.bad}:{suffix}{window}", f"{kind.total}:{suffix}{window}"),
            )
            for kind in KINDS
        ),
    ]


def _counts(window: str, function: str, suffix: str) -> list[Record]:
    requests, count = foreign.GATEWAY_REQUESTS.name, foreign.GATEWAY_DURATION_COUNT.name
    total = f"{AVAILABILITY.total}:{suffix}{window}"
    failed = f'sum by (tenant) ({function}({requests}{{tenant!="", status=~"5.."}}[{window}]))'
    return [
        Record(total, f'sum by (tenant) ({function}({requests}{{tenant!="", status!="429"}}[{window}]))'),
        # A tenant without a failure has no such series yet; its errors are 0, not unknown.
        Record(f"{AVAILABILITY.bad}:{suffix}{window}", f"{failed} or on (tenant) 0 * {total}"),
        Record(
            f"{LATENCY.total}:{suffix}{window}",
            f'sum by (tenant) ({function}({count}{{tenant!=""}}[{window}]))',
        ),
        Record(f"{LATENCY.bad}:{suffix}{window}", f"sum by (tenant) ({function}({_SLOW}[{window}]))"),
    ]


def _share(metric: str, matcher: str, window: str, labels: str) -> str:
    total = f'sum by ({labels}) (rate({metric}{{tenant!=""}}[{window}]))'
    part = f'sum by ({labels}) (rate({metric}{{tenant!="", {matcher}}}[{window}]))'
    return _ratio(f"({part} or 0 * {total})", total)


def _ratio(part: str, whole: str) -> str:
    # Where nothing happened, 0/0 is not a number; the comparison drops it.
    return f"{part} / {whole} >= 0"
