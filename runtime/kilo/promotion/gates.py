"""The gate of a promotion: what must hold in the stage that it comes from, check by check.

The table is section 7 of the sprint's plan. A stage is promoted once its own row of verification has held
through a soak that began when exactly this release went live, and that every breach begins anew. A check
that can't be made, for stale or missing data too, has failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from kilo.goals.figures import Looking
from kilo.goals.goals import GOALS
from kilo.goals.measure import Bound, Figure, Measure, Query, Sql, Verdict
from kilo.observe import foreign, metrics
from kilo.promotion.release import Digests, Live

_HOUR_SECONDS = 3_600
_LONGEST_GRACE_SECONDS = 60
_WATCHED = 0.9
"""Of the soak, the share of time that Prometheus must have been looking."""
_STEPS = 60
_ROWS = ("dev", "stage", "prod")
"""Stages in the order of promotion; a stage is held to the rows of those before it too."""
PAGES = f'{foreign.ALERTS.name}{{alertstate="firing", severity="page"}}'
_BURNS = f'{foreign.ALERTS.name}{{alertname=~"Tenant.*", alertstate="firing", severity="page"}}'
_ERRORS, _THROTTLED = "tenant:error_ratio:rate5m", "tenant:throttled_ratio:rate5m"


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the stage that is promoted to asks for, by ``kilo:promotion`` of its file.

    Attributes:
        soak_hours: how long the release must have been good in the stage that it comes from.
        soak_factor: by what soak times are multiplied; below 1 in rehearsals alone.
        require_digests: whether every image must be known by its digest.
        error_share: at most, of a tenant's requests over five minutes.
        throttled_share: below which a tenant's 429s must stay.
        frozen: why nothing is promoted now; empty when it may.
    """

    soak_hours: float
    soak_factor: float = 1.0
    require_digests: bool = True
    error_share: float = 0.01
    throttled_share: float = 0.01
    frozen: str = ""

    @property
    def soak_seconds(self) -> float:
        """How long the soak is."""
        return self.soak_hours * _HOUR_SECONDS * self.soak_factor


@dataclass(frozen=True, slots=True)
class Check:
    """One check with what it found."""

    name: str
    query: str
    source: str
    window: str
    bound: Bound
    figure: Figure

    @property
    def passed(self) -> bool:
        """Whether it is known to hold."""
        return self.bound.judge(self.figure) is Verdict.MET

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "check": self.name,
            "verdict": "passed" if self.passed else "failed",
            "value": self.figure.value,
            "shown": self.bound.show(self.figure.value),
            "bound": str(self.bound),
            "window": self.window,
            "query": self.query,
            "source": self.source,
            "sampled_at": self.figure.sampled_at,
            "reason": self.figure.trouble or "; ".join(map(str, self.figure.evidence.get("because", ()))),
        }


def check_gate(
    measure: Measure, looking: Looking, live: Live, digests: Digests, settings: GateSettings
) -> list[Check]:
    """Every check of promoting what is live in a stage."""
    start, last_breach = _soak_start(measure, live, digests)
    now = measure.now()
    soaked = max(now - start, 0.0) if start is not None else 0.0
    window = max(min(soaked, settings.soak_seconds), 1.0)
    soak = last_breach
    if not last_breach.trouble:
        soak = replace(last_breach, value=soaked / _HOUR_SECONDS)
    wanted = settings.soak_hours * settings.soak_factor
    checks = [
        *_release(live, digests, settings),
        Check(
            "soak",
            _breach_query(window),
            "the engine's record; Prometheus: when a page last fired or an event was lost",
            said(window),
            Bound(">=", wanted, "h"),
            soak,
        ),
        watched(measure, window),
        _freeze(measure, settings),
    ]
    looking = replace(
        looking,
        window_seconds=math.ceil(window),
        grace_seconds=min(_LONGEST_GRACE_SECONDS, math.ceil(window / 4)),
    )
    return [*checks, *check_row(measure, looking, window, settings)]


def check_row(measure: Measure, looking: Looking, window: float, settings: GateSettings) -> list[Check]:
    """The checks of the stage's row of the table, and of the rows before it, over the last seconds."""
    row = looking.outputs.stage.partition("-")[0]
    rows = _ROWS[: _ROWS.index(row) + 1] if row in _ROWS else _ROWS
    return [check for name in rows for check in _row(name, measure, looking, window, settings)]


def check_first(measure: Measure, settings: GateSettings) -> list[Check]:
    """What must hold before events are published in dev, which no other stage comes before."""
    source = "the database"
    return [
        _database(
            measure,
            "outbox table",
            "SELECT (to_regclass('outbox') IS NOT NULL)::int, NULL::float8",
            Bound("==", 1),
            source,
        ),
        _database(
            measure,
            "SDK wired",
            "SELECT count(*)::float8, extract(epoch FROM max(received_at))::float8"
            " FROM (SELECT received_at FROM events ORDER BY received_at DESC LIMIT 1) newest",
            Bound(">=", 1),
            f"{source}: an event that a service wrote through the SDK",
        ),
        _freeze(measure, settings),
    ]


def _database(measure: Measure, name: str, text: LiteralString, bound: Bound, source: str) -> Check:
    return Check(name, text, source, "now", bound, measure.sql(Sql(text, "the database says nothing")))


def _freeze(measure: Measure, settings: GateSettings) -> Check:
    because = {"because": [settings.frozen]} if settings.frozen else {}
    return Check(
        "freeze",
        "freezes of the stage's file that it goes to",
        "this machine's clock",
        "now",
        Bound("==", 0),
        Figure(float(bool(settings.frozen)), measure.now(), "", because),
    )


def _release(live: Live, digests: Digests, settings: GateSettings) -> list[Check]:
    source = f"the engine's update {live.update}" if live.update is not None else "the engine's record"
    program = (
        Figure.unknown(live.trouble)
        if live.trouble
        else Figure(
            float(not live.committed),
            live.since,
            "",
            {}
            if live.committed
            else {"because": [f"{live.program[:12]} was deployed with changes beside it"]},
        )
    )
    missing = digests.unpinned if settings.require_digests else ()
    because = [f"no digest: {', '.join(missing[:3])}"] if missing else []
    images = Figure(
        float(len(missing) + len(digests.moved)), live.since, "", {"because": [*because, *digests.moved]}
    )
    return [
        Check("program", "uncommitted changes", source, "-", Bound("==", 0), program),
        Check(
            "digests",
            "images without a digest, or whose tag has moved",
            "the stack's state, the primary registry",
            "since live",
            Bound("==", 0),
            Figure.unknown(live.trouble) if live.trouble else images,
        ),
    ]


def _soak_start(measure: Measure, live: Live, digests: Digests) -> tuple[float | None, Figure]:
    """When the soak began, or None; and the figure of the breaches that it was looked through for."""
    if live.since is None:
        return None, Figure.unknown(live.trouble)
    begin = max(live.since, digests.since or 0.0)
    ahead = begin - measure.now()
    if ahead > _LONGEST_GRACE_SECONDS:
        return None, Figure.unknown(f"the release went live {ahead:.0f} s in the future: a clock is wrong")
    if digests.moved:
        return None, Figure.unknown("a tag has moved, so it is another release than the one that went live")
    window = max(measure.now() - begin, 1.0)
    rests_on = (metrics.OUTBOX_LOST.name, metrics.OBJECTIVE_BUDGET.name)
    breach = measure.query(Query(_breach_query(window), rests_on, empty_is=0.0))
    return max(begin, breach.value or 0.0), breach


def _breach_query(window: float) -> str:
    """The last time at which a page fired or an event was lost, in seconds since the epoch."""
    span = f"[{math.ceil(window)}s:{step_of(window)}s]"
    lost = f"timestamp({metrics.OUTBOX_LOST.name} > 0)"
    return f"max(max_over_time((timestamp({PAGES})){span}) or max_over_time(({lost}){span}))"


def step_of(window: float) -> int:
    """The step in seconds at which a window is looked through."""
    return max(1, min(60, math.ceil(window / _STEPS)))


def watched(measure: Measure, window: float) -> Check:
    """Whether Prometheus looked on."""
    seen = metrics.OUTBOX_ROWS_WAITING.name
    step = step_of(window)
    steps = max(int(window) // step, 1)
    query = f"max(count_over_time((max({seen}))[{steps * step}s:{step}s])) / {steps}"
    return Check(
        "watched",
        query,
        "Prometheus: of the soak, the share in which it looked",
        said(window),
        Bound(">=", _WATCHED, "%"),
        measure.query(Query(query, (seen,))),
    )


def _row(
    name: str, measure: Measure, looking: Looking, window: float, settings: GateSettings
) -> Sequence[Check]:
    over = f"{math.ceil(window)}s"
    if name == "dev":
        return [_goal(each, measure, looking, window) for each in ("lost", "duplicates")]
    if name == "stage":
        return [
            _prometheus(
                "reads and writes",
                f"max(max_over_time({_ERRORS}[{over}]))",
                (_ERRORS,),
                Bound("<=", settings.error_share, "%"),
                (measure, window),
            ),
            _goal("mirror-parity", measure, looking, window),
        ]
    return [
        _prometheus(
            "objectives",
            f"count(max_over_time({_BURNS}[{over}]))",
            (metrics.OBJECTIVE_BUDGET.name, _ERRORS),
            Bound("==", 0),
            (measure, window),
            empty_is=0.0,
        ),
        _prometheus(
            "429s",
            f"max(max_over_time({_THROTTLED}[{over}]))",
            (_THROTTLED,),
            Bound("<", settings.throttled_share, "%"),
            (measure, window),
        ),
        _goal("template", measure, looking, window),
    ]


def _prometheus(
    name: str,
    query: str,
    rests_on: tuple[str, ...],
    bound: Bound,
    where: tuple[Measure, float],
    *,
    empty_is: float | None = None,
) -> Check:
    measure, window = where
    figure = measure.query(Query(query, rests_on, empty_is))
    return Check(name, query, "Prometheus", said(window), bound, figure)


def _goal(name: str, measure: Measure, looking: Looking, window: float) -> Check:
    goal = next(each for each in GOALS if each.name == name)
    return Check(name, goal.asks, goal.source, said(window), goal.bound, goal.look(measure, looking))


def said(seconds: float) -> str:
    """A time in words."""
    return f"{seconds / _HOUR_SECONDS:.4g} h" if seconds >= _HOUR_SECONDS else f"{seconds:.0f} s"
