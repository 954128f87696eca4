"""The platform's own counts by tenant and hour: events by kind, encryption, calls to the KMS, what is stored.

Each is counted once, since how far it is counted stands in the transaction of what was counted:

- Events are read from their table in slices of time that end before the oldest open transaction began, so
  none appears in a slice later. A row is read once, over an index by time.
- Counters of processes come from Prometheus. The last value of each series is kept, and what it has grown by
  is added; a process that began anew has other series. What one counted after its last scrape is not known.
- Storage is measured once an hour from a sample of bounded size.

Left out: prepared transactions, which nothing of the platform makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection

from kilo.observe import metrics
from kilo.observe.prometheus import Sample
from kilo.observe.scope import in_namespace

EVENTS, ENCRYPTIONS, KMS_CALLS, KEY_LOOK_UPS, STORED = (
    "events",
    "encryptions",
    "kms_calls",
    "key_look_ups",
    "stored_byte_hours",
)
COUNTERS: Mapping[str, tuple[str, str]] = {
    metrics.FLE_OPERATIONS.name: (ENCRYPTIONS, "operation"),
    metrics.FLE_KMS_CALLS.name: (KMS_CALLS, "operation"),
    metrics.FLE_DATA_KEY_CACHE.name: (KEY_LOOK_UPS, "result"),
}
"""By counter: the measure, and the label that is its kind."""
_STARTED = "process_start_time_seconds"
_SLICE = timedelta(minutes=15)
_AT_ONCE = 200
"""Slices in one look: two days, for a counter that was away."""
_DAY_HOURS = 24

_ADD = (
    "WITH given AS (SELECT *"
    " FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::numeric[])"
    " AS g (hour, tenant, measure, kind, amount)),"
    " hours AS (INSERT INTO usage_measures SELECT hour, tenant, measure, kind, sum(amount) FROM given"
    " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 ON CONFLICT (hour, tenant, measure, kind)"
    " DO UPDATE SET amount = usage_measures.amount + excluded.amount)"
    " INSERT INTO usage_measure_days"
    " SELECT (hour AT TIME ZONE 'UTC')::date, tenant, measure, kind, sum(amount)"
    " FROM given GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 ON CONFLICT (day, tenant, measure, kind)"
    " DO UPDATE SET amount = usage_measure_days.amount + excluded.amount"
)
_TAKE = "SELECT at FROM usage_progress WHERE what = %s FOR UPDATE"
_SET = "UPDATE usage_progress SET at = %s WHERE what = %s"
_INSTALLED = "SELECT at FROM usage_progress WHERE what = 'installed'"
_HORIZON = "SELECT usage_horizon(), date_trunc('hour', now(), 'UTC')"
_EVENTS = (
    "SELECT date_trunc('hour', received_at, 'UTC'), tenant, kind, count(*) FROM events"
    " WHERE received_at >= %s AND received_at < %s GROUP BY 1, 2, 3"
)
_KEEP = (
    "INSERT INTO usage_counters (series, value) SELECT * FROM unnest(%s::text[], %s::float8[])"
    " ON CONFLICT (series) DO UPDATE SET value = excluded.value, seen_at = now()"
)
# A series that is still there is never forgotten, however long it stands still.
_FORGET = "DELETE FROM usage_counters WHERE seen_at < now() - interval '7 days' AND NOT series = ANY (%s)"

Measure = tuple[datetime, str, str, str, Any]
"""Hour, tenant, measure, kind, amount."""
Connection = AsyncConnection[Any]


async def _add(connection: Connection, found: Sequence[Measure]) -> None:
    if found:
        await connection.execute(_ADD, [list(column) for column in zip(*found, strict=True)])


async def _one(connection: Connection, query: LiteralString, values: Sequence[Any] = ()) -> Any:
    return await (await connection.execute(query, values)).fetchone()


async def count_events(connection: Connection) -> datetime:
    """Count the events that nothing can join any more; up to when."""
    until = datetime.min.replace(tzinfo=UTC)
    for _ in range(_AT_ONCE):
        async with connection.transaction():
            (since,) = await _one(connection, _TAKE, ("events",))
            horizon, _ = await _one(connection, _HORIZON)
            until = min(since + _SLICE, horizon)
            if until <= since:
                return since
            rows = await (await connection.execute(_EVENTS, (since, until))).fetchall()
            await _add(
                connection, [(hour, tenant, EVENTS, kind, count) for hour, tenant, kind, count in rows]
            )
            await connection.execute(_SET, (until, "events"))
        if until == horizon:
            return until
    return until


async def count_stored(connection: Connection) -> datetime:
    """Measure what lies there, once an hour, and count it for the hours since the last time."""
    async with connection.transaction():
        (since,) = await _one(connection, _TAKE, ("stored",))
        _, hour = await _one(connection, _HORIZON)
        if hour <= since:
            return since
        rows = await (await connection.execute("SELECT tenant, kind, bytes FROM usage_stored()")).fetchall()
        # Hours of which nothing is known count as this one, for a day at most.
        hours = min(round((hour - since) / timedelta(hours=1)), _DAY_HOURS)
        await _add(
            connection,
            [
                (hour - timedelta(hours=back), tenant, STORED, kind, size)
                for back in range(hours)
                for tenant, kind, size in rows
            ],
        )
        await connection.execute(_SET, (hour, "stored"))
        return hour


def counters_query(namespace: str) -> str:
    """The query of all that :func:`count_counters` takes."""
    names = "|".join([*COUNTERS, _STARTED])
    return f'{{__name__=~"{names}", {in_namespace(namespace)}}}'


async def count_counters(connection: Connection, samples: Sequence[Sample]) -> datetime:
    """Add what processes' counters have grown by; ``samples`` are of :func:`counters_query`."""
    series = _series(samples)
    async with connection.transaction():
        (installed,) = await _one(connection, _INSTALLED)
        # Two that look at once would both add.
        await _one(connection, _TAKE, ("counters",))
        now, hour = await _one(connection, "SELECT now(), date_trunc('hour', now(), 'UTC')")
        rows = await (await connection.execute("SELECT series, value FROM usage_counters")).fetchall()
        known: dict[str, float] = dict(rows)
        found: list[Measure] = []
        kept: dict[str, float] = {}
        for name, (sample, began) in series.items():
            # What a process counted before there was anybody to take it is nobody's.
            old = not known and began < installed.timestamp()
            before = known.get(name, sample.value if old else 0.0)
            # Of two Prometheus servers the one may be a scrape behind: its less is no beginning.
            if sample.value > before:
                measure, kind = COUNTERS[sample.labels["__name__"]]
                grown = round(sample.value) - round(before)
                found.append((hour, sample.labels["tenant"], measure, sample.labels.get(kind, ""), grown))
            if name not in known or sample.value > before:
                kept[name] = sample.value
        await _add(connection, found)
        await connection.execute(_KEEP, (list(kept), list(kept.values())))
        await connection.execute(_FORGET, (list(series),))
        await connection.execute(_SET, (now, "counters"))
        return now


def _series(samples: Sequence[Sample]) -> dict[str, tuple[Sample, float]]:
    """The counters of tenants by a name of each series, with the time at which its process began."""

    def process(sample: Sample) -> tuple[str | None, str | None]:
        return sample.labels.get("pod"), sample.labels.get("instance")

    began = {process(each): each.value for each in samples if each.labels.get("__name__") == _STARTED}
    found: dict[str, tuple[Sample, float]] = {}
    for each in samples:
        if each.labels.get("__name__") in COUNTERS and each.labels.get("tenant"):
            start = began.get(process(each), 0.0)
            found[json.dumps([start, *sorted(each.labels.items())], separators=(",", ":"))] = each, start
    return found
