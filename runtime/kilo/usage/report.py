"""What tenants used, from the tables: one row for each of what is asked for, in the order of its names.

Days come from the table of days and hours from that of hours; both were written at once, so they agree. What
tells requests apart (route, method, status, version) tells nothing about events or storage, so a report by it
has requests alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg

from kilo.errors import BadInput, Unreachable
from kilo.usage.measures import ENCRYPTIONS, EVENTS, KEY_LOOK_UPS, KMS_CALLS, STORED

TIMES = ("day", "hour")
OF_REQUESTS = ("route", "method", "status", "version")
DIMENSIONS = ("tenant", *TIMES, *OF_REQUESTS)

_GIGABYTE = 10**9
_TIMES_USUAL = 3
_USUAL_DAYS = 28
_FEWEST_DAYS = 7
_FEWEST_REQUESTS = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What to report: days in UTC, both included; one tenant or all; by what."""

    since: date
    until: date
    by: tuple[str, ...] = ("tenant",)
    tenant: str | None = None

    def __post_init__(self) -> None:
        unknown = [each for each in self.by if each not in DIMENSIONS]
        if unknown or not self.by:
            msg = f"--by {','.join(self.by)}: it takes {', '.join(DIMENSIONS)}, with commas between"
            raise BadInput(msg)
        if len(set(self.by)) < len(self.by) or set(TIMES) <= set(self.by):
            msg = f"--by {','.join(self.by)}: each once, and day or hour but not both"
            raise BadInput(msg)
        if self.until < self.since:
            msg = f"--until {self.until} is before --since {self.since}"
            raise BadInput(msg)

    @property
    def requests_alone(self) -> bool:
        """Whether it is by what only requests have."""
        return any(each in OF_REQUESTS for each in self.by)


@dataclass(slots=True)
class Used:
    """What one row of a report comes to."""

    requests: int = 0
    failed: int = 0
    shed: int = 0
    received: int = 0
    sent: int = 0
    events: int = 0
    encryptions: int = 0
    kms_calls: int = 0
    keys_found: int = 0
    keys_fetched: int = 0
    stored_byte_hours: Decimal = field(default_factory=Decimal)

    @property
    def hit_ratio(self) -> float | None:
        """Of the data keys that were looked up, how many lay in memory."""
        looked = self.keys_found + self.keys_fetched
        return self.keys_found / looked if looked else None

    @property
    def stored_gigabyte_hours(self) -> Decimal:
        """10^9 bytes for an hour."""
        return self.stored_byte_hours / _GIGABYTE


Key = tuple[str, ...]


def open_database(url: str) -> psycopg.Connection[Any]:
    """A connection that only reads; raises Unreachable."""
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    connection.read_only = True
    return connection


def read_usage(connection: psycopg.Connection[Any], asked: Asked) -> dict[Key, Used]:
    """The rows by what they are by, in its order."""
    found: dict[Key, Used] = {}
    try:
        with connection.transaction():
            # Both tables as they were at one moment.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            _requests(connection, asked, found)
            if not asked.requests_alone:
                _measures(connection, asked, found)
    except psycopg.errors.UndefinedTable as error:
        msg = "the database has no usage tables; bring it to this version: kilo db migrate"
        raise Unreachable(msg) from error
    return dict(sorted(found.items()))


def _place(asked: Asked, tables: tuple[str, str]) -> tuple[str, str, list[Any]]:
    """The columns that the rows are by, what to read, and its values."""
    hours = "hour" in asked.by
    written = "to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:00\"Z\"')"
    columns = ", ".join({"hour": written, "day": "day::text"}.get(each, each) for each in asked.by)
    where = "hour >= %s AND hour < %s" if hours else "day >= %s AND day < %s"
    values: list[Any] = [f"{asked.since}T00:00Z", f"{date.fromordinal(asked.until.toordinal() + 1)}T00:00Z"]
    if not hours:
        values = [asked.since, date.fromordinal(asked.until.toordinal() + 1)]
    if asked.tenant is not None:
        where, values = f"{where} AND tenant = %s", [*values, asked.tenant]
    return columns, f"FROM {tables[0] if hours else tables[1]} WHERE {where} GROUP BY {columns}", values


def _requests(connection: psycopg.Connection[Any], asked: Asked, found: dict[Key, Used]) -> None:
    columns, rest, values = _place(asked, ("usage_requests", "usage_request_days"))
    query = (
        f"SELECT {columns}, sum(requests), coalesce(sum(requests) FILTER (WHERE status = '5xx'), 0),"
        f" coalesce(sum(requests) FILTER (WHERE shed <> ''), 0), sum(received), sum(sent) {rest}"
    )
    for *key, requests, failed, shed, received, sent in connection.execute(query.encode(), values):
        used = found.setdefault(tuple(key), Used())
        used.requests, used.failed, used.shed = int(requests), int(failed), int(shed)
        used.received, used.sent = int(received), int(sent)


def _measures(connection: psycopg.Connection[Any], asked: Asked, found: dict[Key, Used]) -> None:
    columns, rest, values = _place(asked, ("usage_measures", "usage_measure_days"))
    result = f"CASE measure WHEN '{KEY_LOOK_UPS}' THEN kind END"
    query = f"SELECT {columns}, measure, {result}, sum(amount) {rest}, measure, {result}"
    for *key, measure, kind, amount in connection.execute(query.encode(), values):
        used = found.setdefault(tuple(key), Used())
        match measure, kind:
            case (_, None) if measure == EVENTS:
                used.events = int(amount)
            case (_, None) if measure == ENCRYPTIONS:
                used.encryptions = int(amount)
            case (_, None) if measure == KMS_CALLS:
                used.kms_calls = int(amount)
            case (_, None) if measure == STORED:
                used.stored_byte_hours = amount
            case (_, "hit"):
                used.keys_found = int(amount)
            case (_, "miss"):
                used.keys_fetched = int(amount)
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A day on which a tenant asked for several times its usual."""

    tenant: str
    day: date
    requests: int
    usual: float

    @property
    def times(self) -> float:
        """How many times its usual that is."""
        return self.requests / self.usual

    def __str__(self) -> str:
        return (
            f"{self.tenant} asked {self.times:.1f} times its usual on {self.day}:"
            f" {self.requests:,} requests, usually {self.usual:,.0f} a day"
        )


_ANOMALIES = """
WITH days AS (
    SELECT tenant, day, sum(requests)::bigint AS requests FROM usage_request_days
    WHERE tenant <> '' AND day >= %(since)s::date - %(usual)s AND day <= %(until)s
        AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) GROUP BY 1, 2
), compared AS (
    SELECT d.tenant, d.day, d.requests, count(*) AS known,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY b.requests) AS usual
    FROM days d JOIN days b ON b.tenant = d.tenant AND b.day < d.day AND b.day >= d.day - %(usual)s
    WHERE d.day >= %(since)s GROUP BY 1, 2, 3
)
SELECT tenant, day, requests, usual FROM compared
WHERE known >= %(fewest)s AND requests >= %(floor)s AND requests >= %(times)s * usual
ORDER BY requests / usual DESC, tenant, day
"""


def find_anomalies(connection: psycopg.Connection[Any], asked: Asked) -> list[Anomaly]:
    """Days at three times the median of up to 28 before them; of fewer than seven nothing is said."""
    values = {
        "since": asked.since,
        "until": asked.until,
        "tenant": asked.tenant,
        "usual": _USUAL_DAYS,
        "fewest": _FEWEST_DAYS,
        "floor": _FEWEST_REQUESTS,
        "times": _TIMES_USUAL,
    }
    return [Anomaly(*row) for row in connection.execute(_ANOMALIES, values)]


def columns_of(asked: Asked) -> Sequence[tuple[str, type]]:
    """The columns of a report as files have them, with the type of each."""
    by: list[tuple[str, type]] = [(each, str) for each in asked.by]
    of_requests = [(name, int) for name in ("requests", "failed", "shed", "received", "sent")]
    if asked.requests_alone:
        return [*by, *of_requests]
    counts = [(name, int) for name in ("events", "encryptions", "kms_calls")]
    return [*by, *of_requests, *counts, ("hit_ratio", float), ("stored_gigabyte_hours", Decimal)]


def as_rows(found: dict[Key, Used], asked: Asked) -> list[list[Any]]:
    """The rows of :func:`columns_of`."""
    names = [name for name, _ in columns_of(asked)][len(asked.by) :]
    return [[*key, *(getattr(used, name) for name in names)] for key, used in found.items()]
