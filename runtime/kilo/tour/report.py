"""The tour's summary, as a table for people and as JSON for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from kilo.tables import make_table
from kilo.tour.count import TenantCount

_COLUMNS = (
    "tenant",
    "sent",
    "acknowledged",
    "in outbox",
    "by worker",
    "by CDC",
    "lost",
    "duplicates",
    "p50 ms",
    "p99 ms",
    "encrypted fields",
)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile, None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def total(counts: Mapping[str, TenantCount]) -> TenantCount:
    """All tenants together."""
    whole = TenantCount()
    for line in counts.values():
        for name in (
            "sent",
            "acknowledged",
            "refused",
            "in_outbox",
            "by_worker",
            "by_cdc",
            "duplicates",
            "altered",
        ):
            setattr(whole, name, getattr(whole, name) + getattr(line, name))
        whole.latencies += line.latencies
        for name, number in line.encrypted.items():
            whole.encrypted[name] = whole.encrypted.get(name, 0) + number
        for name, number in line.plain.items():
            whole.plain[name] = whole.plain.get(name, 0) + number
    return whole


def as_json(line: TenantCount) -> dict[str, object]:
    """One line as JSON; latencies in milliseconds."""
    return {
        "sent": line.sent,
        "acknowledged": line.acknowledged,
        "refused": line.refused,
        "in_outbox": line.in_outbox,
        "delivered_by_worker": line.by_worker,
        "delivered_by_cdc": line.by_cdc,
        "lost": line.lost,
        "duplicate_deliveries": line.duplicates,
        "altered": line.altered,
        "p50_ms": _milliseconds(line, 50),
        "p99_ms": _milliseconds(line, 99),
        "encrypted": line.encrypted,
        "plain": line.plain,
    }


def as_table(counts: Mapping[str, TenantCount]) -> Table:
    """The table of all tenants with their total."""
    rows = [(tenant, *_values(line)) for tenant, line in sorted(counts.items())]
    totals = ("total", *_values(total(counts)))
    bold = [value if isinstance(value, Text) else Text(value, style="bold") for value in totals]
    return make_table(_COLUMNS, [*rows, bold], numbers=_COLUMNS[1:-1])


def _values(line: TenantCount) -> list[str | Text]:
    lost = Text(str(line.lost), style="bold red") if line.lost else "0"
    numbers = [line.sent, line.acknowledged, line.in_outbox, line.by_worker, line.by_cdc]
    latencies = [_milliseconds(line, percent) for percent in (50, 99)]
    shown = ["-" if value is None else f"{value:.0f}" for value in latencies]
    fields = ", ".join(f"{name} {number}" for name, number in sorted(line.encrypted.items())) or "-"
    return [*map(str, numbers), lost, str(line.duplicates), *shown, fields]


def _milliseconds(line: TenantCount, percent: float) -> float | None:
    value = percentile(line.latencies, percent)
    return None if value is None else round(value * 1000, 1)
