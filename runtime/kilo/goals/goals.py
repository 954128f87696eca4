"""The sprint's goals as data: what each asks, its bound, and where its live figure comes from.

The goals are those of section 2 of the sprint's plan. A figure over a time looks back over the window; what
is younger than ``Looking.grace_seconds`` may still be under way and is not counted as lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.goals.measure import Bound, Figure, Measure, Query, Sql, Verdict, worst
from kilo.observe import foreign, metrics
from kilo.observe.burns import BURNS
from kilo.observe.panels import PAGES

FIELDS = 2
"""How many sensitive fields each gold tenant has encrypted."""
_DAY_SECONDS = 86_400
_COMPARED_SECONDS = 10_800.0
"""How long ago the registries may have been compared; `MirrorNotCompared` alerts beyond."""
_DIFFERENT = "drift|missing|missing_attestation|unreadable|unreachable|quarantined"
_BREACHES = "Tenant(AvailabilityBurn|LatencyBurn|Unserved|BudgetSpent)"
_DASHBOARD_LABEL = "grafana_dashboard"


@dataclass(frozen=True, slots=True)
class Looking:
    """At what, and how far back.

    Attributes:
        outputs: the stage's.
        window_seconds: how far back figures over a time look.
        grace_seconds: how long an event may be under way before it is missing.
        state: the stack's, as ``pulumi stack export`` has it; or why there is none.
        previews: records of services that were made from the template and previewed, the newest last.
    """

    outputs: StackOutputs
    window_seconds: int = _DAY_SECONDS
    grace_seconds: int = 60
    state: Mapping[str, Any] | str = "the stack's state was not read"
    previews: Sequence[Mapping[str, Any]] = ()

    @property
    def window(self) -> str:
        """For PromQL."""
        return f"{self.window_seconds}s"


Look = Callable[[Measure, Looking], Figure]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Attributes:
        name: short, for commands.
        asks: the sprint's words, shortened.
        bound: what the figure must be.
        source: where the figure comes from, for whoever asks again.
        look: takes the figure.
    """

    name: str
    asks: str
    bound: Bound
    source: str
    look: Look
    before: Look | None = None
    """Takes the figure of one window earlier."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A goal with its figure.

    Attributes:
        goal: which.
        figure: the live one.
        before: the figure of a window earlier, where the source keeps it.
    """

    goal: Goal
    figure: Figure
    before: Figure

    @property
    def verdict(self) -> Verdict:
        """Met, missed or unknown."""
        return self.goal.bound.judge(self.figure)

    @property
    def trend(self) -> str:
        """How the figure moved since one window before."""
        if self.figure.value is None or self.before.value is None:
            return "-"
        moved = self.figure.value - self.before.value
        return "steady" if moved == 0 else f"{'+' if moved > 0 else '-'}{self.goal.bound.show(abs(moved))}"

    def document(self, now: float) -> dict[str, Any]:
        """The JSON form; ``now`` is in seconds since the epoch."""
        figure = self.figure
        return {
            "goal": self.goal.name,
            "asks": self.goal.asks,
            "verdict": self.verdict.value,
            "value": figure.value,
            "shown": self.goal.bound.show(figure.value),
            "bound": str(self.goal.bound),
            "unit": self.goal.bound.unit,
            "trend": self.trend,
            "source": self.goal.source,
            "sampled_at": figure.sampled_at,
            "age_seconds": None if figure.sampled_at is None else round(now - figure.sampled_at, 1),
            "reason": figure.trouble,
            "evidence": dict(figure.evidence),
        }


_EVENTS_OF_WINDOW = """
FROM events e
WHERE e.received_at >= now() - make_interval(secs => %(window)s + %(offset)s)
  AND e.received_at < now() - make_interval(secs => %(grace)s + %(offset)s)
"""
_DELIVERED = "EXISTS (SELECT FROM inbox i WHERE i.fingerprint = e.fingerprint AND i.tenant = e.tenant)"
_PARKED = "EXISTS (SELECT FROM dead_letters d WHERE d.fingerprint = e.fingerprint AND d.tenant = e.tenant)"
_WAITING = """EXISTS (SELECT FROM outbox o WHERE o.fingerprint = e.fingerprint AND o.tenant = e.tenant
                      AND o.dequeued_at IS NULL)"""
_NEWEST_EVENT = "extract(epoch FROM max(e.received_at))::float8"


def _share(measure: Measure, looking: Looking, offset: int = 0) -> Figure:
    return measure.sql(
        Sql(
            f"SELECT count(*) FILTER (WHERE {_DELIVERED} OR {_PARKED}) / nullif(count(*), 0)::float8,"
            f" {_NEWEST_EVENT}, count(*) {_EVENTS_OF_WINDOW}",
            "no event was taken in within the window",
            _bounds(looking, offset),
            ("events",),
        )
    )


def _lost(measure: Measure, looking: Looking) -> Figure:
    missing = measure.sql(
        Sql(
            f"SELECT CASE WHEN count(*) > 0 THEN count(*) FILTER"
            f" (WHERE NOT {_DELIVERED} AND NOT {_PARKED} AND NOT {_WAITING}) END,"
            f" {_NEWEST_EVENT}, count(*) {_EVENTS_OF_WINDOW}",
            "no event was taken in within the window",
            _bounds(looking),
            ("events",),
        )
    )
    name = metrics.OUTBOX_LOST.name
    compared = measure.query(Query(f"max(max_over_time({name}[{looking.window}]))", (name,)))
    return worst([missing, compared], sum)


def _duplicates(measure: Measure, looking: Looking, offset: int = 0) -> Figure:
    return measure.sql(
        Sql(
            "SELECT sum(i.duplicates) / nullif(count(*), 0)::float8,"
            " extract(epoch FROM max(i.received_at))::float8, count(*) FROM inbox i"
            " WHERE i.received_at >= now() - make_interval(secs => %(window)s + %(offset)s)"
            " AND i.received_at < now() - make_interval(secs => %(offset)s)",
            "no event was delivered within the window",
            _bounds(looking, offset),
            ("deliveries",),
        )
    )


def _bounds(looking: Looking, offset: int = 0) -> dict[str, int]:
    return {"window": looking.window_seconds, "grace": looking.grace_seconds, "offset": offset}


def _fields(measure: Measure, looking: Looking) -> Figure:
    gold = {name: each for name, each in looking.outputs.tenants.items() if each.tier == "gold"}
    if not gold:
        return Figure.unknown("the stage has no gold tenant")
    lie = f'min by (tenant, field) ({metrics.FLE_COVERAGE.name}{{tenant=~"{"|".join(sorted(gold))}"}}) == 1'
    rests_on = (metrics.FLE_COVERAGE.name,)
    tenants = measure.query(Query(f"count(count by (tenant) ({lie}))", rests_on, empty_is=0.0))
    fields = measure.query(Query(f"min(count by (tenant) ({lie}))", rests_on, empty_is=0.0))
    if fields.trouble or fields.value is None or tenants.value is None:
        return fields
    # What lies encrypted counts only where the configuration keeps it so.
    least = min(fields.value, *(float(len(each.encrypted_fields)) for each in gold.values()))
    lacking = len(gold) - int(tenants.value)
    return replace(
        fields,
        value=0.0 if lacking else least,
        evidence={"gold tenants": len(gold), "of them without a field that lies encrypted": lacking},
    )


def _rotation(measure: Measure, looking: Looking) -> Figure:
    return measure.sql(
        Sql(
            "SELECT count(*)::float8,"
            " extract(epoch FROM max((f.entry::jsonb ->> 'at')::timestamptz))::float8,"
            " string_agg(left(f.entry::jsonb #>> '{details,plan}', 12), ', ')"
            " FROM fle_audit f JOIN fle_audit p ON p.entry::jsonb ->> 'action' = 'plan'"
            " AND p.entry::jsonb #>> '{details,plan}' = f.entry::jsonb #>> '{details,plan}'"
            " AND p.entry::jsonb #>> '{details,content,kind}' = 'rekey'"
            " WHERE f.entry::jsonb ->> 'action' = 'finalize'",
            "",
            names=("plans",),
        )
    )


def _mirror_lag(measure: Measure, looking: Looking) -> Figure:
    lag, duration = metrics.MIRROR_LAG.name, f"{metrics.MIRROR_DURATION.name}_bucket"
    waiting = measure.query(Query(f"max(max_over_time({lag}[{looking.window}]))", (lag,)))
    took = measure.query(Query(f"histogram_quantile(1, sum by (le) ({duration}))", (lag, duration)))
    return worst([took, waiting], max)


def _mirror_parity(measure: Measure, looking: Looking) -> Figure:
    compared, drift = metrics.MIRROR_COMPARED_LAST_SUCCESS.name, metrics.MIRROR_DRIFT.name
    age = measure.query(Query(f"time() - max({compared})", (compared,)))
    if age.trouble or age.value is None:
        return age
    if age.value > _COMPARED_SECONDS:
        return Figure.unknown(f"the registries were last compared {age.value:.0f} s ago", age.sampled_at)
    return measure.query(
        Query(f'sum({drift}{{finding=~"{_DIFFERENT}"}})', (compared, drift)),
    )


def _template(_measure: Measure, looking: Looking) -> Figure:
    if not looking.previews:
        return Figure.unknown("no preview of a service is recorded")
    record = looking.previews[-1]
    try:
        seconds, ended = float(record["seconds"]), float(record["ended_at"])
        green = bool(record["checks"]) and all(check["state"] == "green" for check in record["checks"])
        service = str(record["service"])
    except (KeyError, TypeError, ValueError):
        return Figure.unknown("the record of the preview is not complete")
    if not green:
        return Figure.unknown(f"the preview of {service} has checks that are not green", ended)
    return Figure(seconds, ended, "", {"service": service, "checks": len(record["checks"])})


def _ramp(measure: Measure, looking: Looking) -> Figure:
    used = measure.sql(
        Sql(
            "SELECT nullif(count(*), 0)::float8, extract(epoch FROM max(ended_at))::float8,"
            " string_agg(DISTINCT tenant || ' ' || feature, ', '), string_agg(DISTINCT tenant, '|')"
            " FROM ramps WHERE stage = %(stage)s AND state = 'done'",
            "no ramp of a feature has come to its end",
            {"stage": looking.outputs.stage},
            ("ramps", "tenants"),
        )
    )
    if used.trouble:
        return used
    # One that its gate took back is no roll-out: what it cost is in the alerts and the ramp's own record.
    tenants = used.evidence["tenants"]
    firing = f'{foreign.ALERTS.name}{{alertname=~"{_BREACHES}", alertstate="firing", tenant=~"{tenants}"}}'
    breached = measure.query(
        Query(
            f"count(count by (alertname, tenant) (max_over_time({firing}[{looking.window}])))",
            # That no alert fires says something only while what alerts rest on is there.
            (metrics.OBJECTIVE_BUDGET.name, "tenant:requests:rate5m"),
            empty_is=0.0,
        )
    )
    return replace(breached, evidence=dict(used.evidence))


def _dashboards(_measure: Measure, looking: Looking) -> Figure:
    if isinstance(looking.state, str):
        return Figure.unknown(looking.state)
    published: set[str] = set()
    for resource in looking.state["deployment"].get("resources") or ():
        inputs = resource.get("inputs") or {}
        if _DASHBOARD_LABEL in ((inputs.get("metadata") or {}).get("labels") or {}):
            published |= {name.removesuffix(".json") for name in inputs.get("data") or {}}
    wanted = {page.file for page in PAGES if page.tenants}
    missing = sorted(wanted - published)
    return Figure(float(len(missing)), None, "", {"published": len(published), "missing": missing})


def _burns(measure: Measure, _looking: Looking) -> Figure:
    """How many of the burn alerts nothing evaluates; the rules' tests show that they fire."""
    wanted = {
        (name, f"{burn.factor:g}")
        for name in ("TenantAvailabilityBurn", "TenantLatencyBurn")
        for burn in BURNS
    }
    try:
        evaluated = measure.rules()
    except KiloError as error:
        return Figure.unknown(str(error))
    at = [evaluated[key] for key in wanted if key in evaluated]
    missing = sorted(f"{name} {factor}x" for name, factor in wanted - evaluated.keys())
    return Figure(float(len(missing)), min(at, default=None), "", {"evaluated": len(at), "missing": missing})


GOALS = (
    Goal(
        "outbox-share",
        "Share of ingest that outbox and CDC carried",
        Bound(">=", 0.95, "%"),
        "database: events of the window that the inbox or a dead letter has",
        _share,
        lambda measure, looking: _share(measure, looking, looking.window_seconds),
    ),
    Goal(
        "lost",
        "Events lost",
        Bound("==", 0),
        f"database: events that nothing has; Prometheus: {metrics.OUTBOX_LOST.name}",
        _lost,
    ),
    Goal(
        "duplicates",
        "Rate of duplicates",
        Bound("<=", 0.001, "%"),
        "database: inbox.duplicates of the window's deliveries",
        _duplicates,
        lambda measure, looking: _duplicates(measure, looking, looking.window_seconds),
    ),
    Goal(
        "fle-fields",
        "Fields that lie encrypted, of the gold tenant that has fewest",
        Bound(">=", FIELDS),
        f"Prometheus: {metrics.FLE_COVERAGE.name}; outputs: encrypted_fields",
        _fields,
    ),
    Goal(
        "fle-rotation",
        "Key rotations that the runbook brought to their end",
        Bound(">=", 1),
        "database: the audit log's finalized plans of kind rekey",
        _rotation,
    ),
    Goal(
        "mirror-lag",
        "Longest time from a push to its mirrored image",
        Bound("<", 300, "s"),
        f"Prometheus: {metrics.MIRROR_DURATION.name}, {metrics.MIRROR_LAG.name}",
        _mirror_lag,
    ),
    Goal(
        "mirror-parity",
        "Differences of images, SBOMs and provenance",
        Bound("==", 0),
        f"Prometheus: {metrics.MIRROR_DRIFT.name}, {metrics.MIRROR_COMPARED_LAST_SUCCESS.name}",
        _mirror_parity,
    ),
    Goal(
        "template",
        "From the template to a green preview",
        Bound("<", 600, "s"),
        "the record of the last preview of a new service",
        _template,
    ),
    Goal(
        "ramp",
        "Breaches of objectives of tenants whose ramp came to its end",
        Bound("==", 0),
        f"database: ramps; Prometheus: {foreign.ALERTS.name} of burns, budgets and unserved tenants",
        _ramp,
    ),
    Goal(
        "dashboards",
        "Tenants' dashboards that are not published",
        Bound("==", 0),
        "the stack's state: ConfigMaps with the dashboards",
        _dashboards,
    ),
    Goal(
        "burn-alerts",
        "Burn alerts that are not evaluated",
        Bound("==", 0),
        "Prometheus: its rules, their health and last evaluation",
        _burns,
    ),
)
"""Section 2 of the sprint's plan."""


def read_goals(measure: Measure, looking: Looking) -> list[Standing]:
    """Every goal as it stands now; one that can't be measured does not keep the others from it."""
    return [
        Standing(
            goal,
            goal.look(measure, looking),
            goal.before(measure, looking) if goal.before else Figure.unknown("the source keeps no history"),
        )
        for goal in GOALS
    ]
