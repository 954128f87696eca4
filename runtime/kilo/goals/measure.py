"""Figures with the time of their newest sample, and why one is not known.

Every figure names its query, so that whoever doubts it can ask again. It is known only while the series that
it rests on are fresh by the clock of Prometheus, and while that clock and this machine's agree: a figure of
yesterday, or of a clock that is wrong, is no figure.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, LiteralString

import psycopg
from psycopg.rows import TupleRow

from kilo.database.migrator import use_schema
from kilo.errors import KiloError, Unreachable
from kilo.observe.prometheus import Prometheus, Sample
from kilo.observe.rules import recorded_names
from kilo.observe.scope import in_namespace, scoped

FRESH_SECONDS = 120.0
"""How old the newest sample of a series may be: some scrapes, and the longest interval between records."""
SKEW_SECONDS = 60.0
"""By how much two clocks may differ."""
_SQL_MILLISECONDS = 20_000


class Verdict(StrEnum):
    """How a figure stands to its bound."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and the time of its newest sample in seconds since the epoch; or why there is none."""

    value: float | None
    sampled_at: float | None
    trouble: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it was made of, for whoever wants to see more than the figure."""

    @classmethod
    def unknown(cls, why: str, sampled_at: float | None = None) -> Figure:
        """No figure."""
        return cls(None, sampled_at, why)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must be.

    Attributes:
        relation: ``>=``, ``<=``, ``<`` or ``==``.
        limit: in the figure's unit.
        unit: ``%`` (of a share of 1), ``s`` or nothing.
    """

    relation: str
    limit: float
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within; a value that is no number is not."""
        if not math.isfinite(value):
            return False
        return {
            ">=": value >= self.limit,
            "<=": value <= self.limit,
            "<": value < self.limit,
            "==": value == self.limit,
        }[self.relation]

    def __str__(self) -> str:
        return f"{self.relation} {self.show(self.limit)}"

    def show(self, value: float | None) -> str:
        """A value in this bound's unit."""
        if value is None:
            return "-"
        if self.unit == "%":
            return f"{value * 100:.4g} %"
        return f"{value:.4g}{' ' + self.unit if self.unit else ''}"

    def judge(self, figure: Figure) -> Verdict:
        """The verdict on a figure."""
        if figure.trouble or figure.value is None:
            return Verdict.UNKNOWN
        return Verdict.MET if self.holds(figure.value) else Verdict.MISSED


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL over declared metrics.

    Attributes:
        promql: gives one sample, or none.
        rests_on: series that must each have a fresh sample, else nothing is known.
        empty_is: the value of no result at all, where that means something (no alert fires).
        fresh_seconds: the age that the newest sample may have.
    """

    promql: str
    rests_on: tuple[str, ...]
    empty_is: float | None = None
    fresh_seconds: float = FRESH_SECONDS


@dataclass(frozen=True, slots=True)
class Sql:
    """A statement that gives one row: the value and the newest sample's time (or null), then evidence.

    Attributes:
        text: what is asked; ``%(ago)s`` in it are the seconds before now as of which it is asked.
        parameters: of the statement.
        empty: what is said when the value is null.
        names: of the columns after the first two.
        fresh_seconds: the age that the newest sample may have; any, without it.
    """

    text: LiteralString
    empty: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    names: tuple[str, ...] = ()
    fresh_seconds: float | None = None


Clock = Callable[[], float]


class Measure:
    """Asks one stage's Prometheus and database.

    Args:
        prometheus: the stage's.
        namespace: the stage's.
        connection: a session on its tables, or why there is none.
        clock: this machine's time, in seconds since the epoch.
        ago: as of how many seconds before now it asks.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        namespace: str,
        connection: psycopg.Connection[TupleRow] | str,
        clock: Clock = time.time,
        ago: float = 0.0,
    ) -> None:
        self.prometheus, self.connection = prometheus, connection
        self._namespace, self._clock, self._ago = namespace, clock, ago
        self._matcher = in_namespace(namespace)

    def now(self) -> float:
        """This machine's time, or the earlier one that it asks as of."""
        return self._clock() - self._ago

    def earlier(self, seconds: float) -> Measure:
        """One that asks the same sources as of so many seconds before now."""
        return Measure(self.prometheus, self._namespace, self.connection, self._clock, self._ago + seconds)

    def scoped(self, promql: str) -> str:
        """The query, narrowed to the stage."""
        return scoped(promql, self._matcher, recorded_names())

    def query(self, query: Query) -> Figure:
        """A figure of Prometheus; what can't be known is said in it."""
        try:
            oldest = self._fresh(query)
            found = [each.value for each in self._instant(query.promql)]
        except KiloError as error:
            return Figure.unknown(str(error))
        except _NotKnown as error:
            return error.figure
        value = found[0] if found else query.empty_is
        trouble = ""
        if len(found) > 1:
            trouble = f"the query has {len(found)} results instead of one"
        elif value is None:
            trouble = "the query has no result"
        elif not math.isfinite(value):
            trouble = "nothing was counted: the query's result is no number"
        return Figure.unknown(trouble, oldest) if trouble else Figure(value, oldest)

    def _instant(self, promql: str) -> list[Sample]:
        return self.prometheus.query(self.scoped(promql), self.now() if self._ago else None)

    def _fresh(self, query: Query) -> float | None:
        """The time of the sample that is the oldest among the newest ones.

        Raises:
            _NotKnown: clocks differ, or a series is missing or stale.
        """
        theirs = float(self.prometheus.get("query", {"query": "time()"})["result"][1])
        self._agree("Prometheus", theirs)
        theirs -= self._ago
        oldest: float | None = None
        for selector in query.rests_on:
            newest = self._instant(f"max(timestamp({selector}))")
            if not newest or not math.isfinite(newest[0].value):
                msg = f"Prometheus has no sample of {selector}"
                raise _NotKnown(msg)
            _check_age(f"the newest sample of {selector}", newest[0].value, theirs, query.fresh_seconds)
            oldest = newest[0].value if oldest is None else min(oldest, newest[0].value)
        return oldest

    def sql(self, sql: Sql) -> Figure:
        """A figure of the database; what can't be known is said in it."""
        if isinstance(self.connection, str):
            return Figure.unknown(self.connection)
        try:
            with self.connection.transaction():
                row = self.connection.execute(
                    "SELECT extract(epoch FROM clock_timestamp())::float8,"
                    " set_config('statement_timeout', %s, true)",
                    (str(_SQL_MILLISECONDS),),
                ).fetchone()
                theirs = float(row[0]) if row else 0.0
                found = self.connection.execute(sql.text, {**sql.parameters, "ago": self._ago}).fetchone()
            self._agree("the database", theirs)
            theirs -= self._ago
            if found is None or found[0] is None:
                return Figure.unknown(sql.empty)
            value, newest, *rest = found
            at = theirs if newest is None else float(newest)
            _check_age("the newest row", at, theirs, sql.fresh_seconds)
        except psycopg.Error as error:
            return Figure.unknown(f"the database does not say ({_reason(error)})")
        except _NotKnown as error:
            return error.figure
        return Figure(float(value), at, "", dict(zip(sql.names, rest, strict=True)))

    def rules(self) -> dict[tuple[str, str], float]:
        """When each alert that is healthy was last evaluated, by name and burn rate; none that stands still.

        Raises:
            KiloError: Prometheus does not say.
        """
        if self._ago:
            msg = "Prometheus says of its rules only when they were evaluated last"
            raise Unreachable(msg)
        found: dict[tuple[str, str], float] = {}
        for group in self.prometheus.get("rules", {"type": "alert"})["groups"]:
            longest = 2 * float(group.get("interval", 0)) + FRESH_SECONDS
            for rule in group["rules"]:
                at, labels = _time(str(rule.get("lastEvaluation", ""))), rule.get("labels", {})
                if labels.get("namespace") != self._namespace:
                    continue
                if rule.get("health") == "ok" and -SKEW_SECONDS <= self._clock() - at <= longest:
                    found[rule["name"], labels.get("burn_rate", "")] = at
        return found

    def rows(self, text: LiteralString, parameters: Mapping[str, Any] | None = None) -> list[TupleRow] | str:
        """Rows of the database, or why there are none."""
        if isinstance(self.connection, str):
            return self.connection
        try:
            with self.connection.transaction():
                return self.connection.execute(text, dict(parameters or {})).fetchall()
        except psycopg.Error as error:
            return f"the database does not say ({_reason(error)})"

    def _agree(self, whose: str, theirs: float) -> None:
        ahead = theirs - self._clock()
        if abs(ahead) > SKEW_SECONDS:
            side = "ahead of" if ahead > 0 else "behind"
            msg = f"clocks differ: {whose} is {abs(ahead):.0f} s {side} this machine"
            raise _NotKnown(msg)


class _NotKnown(Exception):
    def __init__(self, why: str, sampled_at: float | None = None) -> None:
        super().__init__(why)
        self.figure = Figure.unknown(why, sampled_at)


def _check_age(what: str, at: float, now: float, longest: float | None) -> None:
    if at > now + SKEW_SECONDS:
        msg = f"{what} is from the future"
        raise _NotKnown(msg, at)
    if longest is not None and now - at > longest:
        msg = f"{what} is {now - at:.0f} s old"
        raise _NotKnown(msg, at)


def worst(figures: Sequence[Figure], pick: Callable[[list[float]], float]) -> Figure:
    """One figure of several: unknown when one is, else what ``pick`` takes, as old as its oldest."""
    for figure in figures:
        if figure.trouble:
            return figure
    ages = [figure.sampled_at for figure in figures if figure.sampled_at is not None]
    value = pick([figure.value for figure in figures if figure.value is not None])
    evidence = {name: value for figure in figures for name, value in figure.evidence.items()}
    return replace(figures[0], value=value, sampled_at=min(ages, default=None), evidence=evidence)


def open_database(url: str, schema: str) -> psycopg.Connection[TupleRow] | str:
    """A read-only session on the stage's tables, or why there is none; never the URL itself."""
    if not url:
        return "DATABASE_URL is not set, so the database was not asked"
    try:
        connection = psycopg.connect(url, connect_timeout=5, autocommit=True, application_name="kilo goals")
        connection.read_only = True
        use_schema(connection, schema)
    except psycopg.Error as error:
        return f"DATABASE_URL: the database can't be reached ({_reason(error)})"
    return connection


def _time(text: str) -> float:
    """Seconds since the epoch of Prometheus' RFC 3339, whose fractions have nine digits; 0 for none."""
    try:
        return datetime.fromisoformat(re.sub(r"([.][0-9]{6})[0-9]*", r"\1", text)).timestamp()
    except ValueError:
        return 0.0


def _reason(error: psycopg.Error) -> str:
    """Without what a message may quote: rows, and the address with its user."""
    return f"{type(error).__name__}{' ' + error.sqlstate if error.sqlstate else ''}"
