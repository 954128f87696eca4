"""The figures behind the sprint's goals: what each is read from, and what it rests on.

A figure over a time looks back over the window; what is younger than ``Looking.grace_seconds`` may still be
under way and is not counted as lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.goals.measure import Figure, Measure, Query, Sql, worst
from kilo.observe import foreign, metrics
from kilo.observe.burns import BURNS
from kilo.observe.pages import PAGES

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


_EVENTS_OF_WINDOW = """
FROM events e
WHERE e.received_at >= now() - make_interval(secs => %(window)s + %(ago)s)
  AND e.received_at < now() - make_interval(secs => %(grace)s + %(ago)s)
"""
# Only as a condition of WHERE are these joins; in a FILTER each event looks through the whole inbox.
_DELIVERED = "EXISTS (SELECT FROM inbox i WHERE i.fingerprint = e.fingerprint AND i.tenant = e.tenant)"
_PARKED = "EXISTS (SELECT FROM dead_letters d WHERE d.fingerprint = e.fingerprint AND d.tenant = e.tenant)"
_WAITING = """EXISTS (SELECT FROM outbox o WHERE o.fingerprint = e.fingerprint AND o.tenant = e.tenant
                      AND o.dequeued_at IS NULL)"""
_NEWEST_EVENT = "extract(epoch FROM max(e.received_at))::float8"


def outbox_share(measure: Measure, looking: Looking) -> Figure:
    """The share of the events taken in that the inbox or a dead letter has by now."""
    return measure.sql(
        Sql(
            f"SELECT 1 - (SELECT count(*) {_EVENTS_OF_WINDOW} AND NOT {_DELIVERED} AND NOT {_PARKED})"
            " / nullif(count(*), 0)::float8,"
            f" {_NEWEST_EVENT}, count(*) {_EVENTS_OF_WINDOW}",
            "no event was taken in within the window",
            _bounds(looking),
            ("events",),
        )
    )


def lost(measure: Measure, looking: Looking) -> Figure:
    """How many events nothing has any more, by the tables and by the reconciler, whichever says more."""
    missing = measure.sql(
        Sql(
            f"SELECT CASE WHEN count(*) > 0 THEN (SELECT count(*) {_EVENTS_OF_WINDOW}"
            f" AND NOT {_DELIVERED} AND NOT {_PARKED} AND NOT {_WAITING}) END,"
            f" {_NEWEST_EVENT}, count(*) {_EVENTS_OF_WINDOW}",
            "no event was taken in within the window",
            _bounds(looking),
            ("events",),
        )
    )
    name = metrics.OUTBOX_LOST.name
    compared = measure.query(Query(f"max(max_over_time({name}[{looking.window}]))", (name,)))
    return worst([missing, compared], sum)


def duplicates(measure: Measure, looking: Looking) -> Figure:
    """Deliveries that the inbox recognised as repeated, a delivery."""
    return measure.sql(
        Sql(
            "SELECT sum(i.duplicates) / nullif(count(*), 0)::float8,"
            " extract(epoch FROM max(i.received_at))::float8, count(*) FROM inbox i"
            " WHERE i.received_at >= now() - make_interval(secs => %(window)s + %(ago)s)"
            " AND i.received_at < now() - make_interval(secs => %(ago)s)",
            "no event was delivered within the window",
            _bounds(looking),
            ("deliveries",),
        )
    )


def _bounds(looking: Looking) -> dict[str, int]:
    return {"window": looking.window_seconds, "grace": looking.grace_seconds}


def encrypted_fields(measure: Measure, looking: Looking) -> Figure:
    """How many fields are encrypted for the gold tenant that has fewest, as configured and as measured."""
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


def rotations(measure: Measure, looking: Looking) -> Figure:
    """How many planned re-keys were finalized, by the audit log."""
    return measure.sql(
        Sql(
            # An audit log that is younger than that says nothing of it.
            "SELECT CASE WHEN %(ago)s::float8 = 0"
            " OR (SELECT (entry::jsonb ->> 'at')::timestamptz FROM fle_audit ORDER BY seq LIMIT 1)"
            " <= now() - make_interval(secs => %(ago)s) THEN count(*)::float8 END,"
            " extract(epoch FROM max((f.entry::jsonb ->> 'at')::timestamptz))::float8,"
            " string_agg(left(f.entry::jsonb #>> '{details,plan}', 12), ', ')"
            " FROM fle_audit f JOIN fle_audit p ON p.entry::jsonb ->> 'action' = 'plan'"
            " AND p.entry::jsonb #>> '{details,plan}' = f.entry::jsonb #>> '{details,plan}'"
            " AND p.entry::jsonb #>> '{details,content,kind}' = 'rekey'"
            " WHERE f.entry::jsonb ->> 'action' = 'finalize'"
            " AND (f.entry::jsonb ->> 'at')::timestamptz <= now() - make_interval(secs => %(ago)s)",
            "the audit log is younger",
            names=("plans",),
        )
    )


def mirror_lag(measure: Measure, looking: Looking) -> Figure:
    """Seconds from a push to its mirrored image, at most."""
    lag, duration = metrics.MIRROR_LAG.name, f"{metrics.MIRROR_DURATION.name}_bucket"
    waiting = measure.query(Query(f"max(max_over_time({lag}[{looking.window}]))", (lag,)))
    took = measure.query(Query(f"histogram_quantile(1, sum by (le) ({duration}))", (lag, duration)))
    return worst([took, waiting], max)


def mirror_differences(measure: Measure, looking: Looking) -> Figure:
    """Differences that the last comparison of the registries found; unknown when that is too long ago."""
    compared, drift = metrics.MIRROR_COMPARED_LAST_SUCCESS.name, metrics.MIRROR_DRIFT.name
    age = measure.query(Query(f"time() - max({compared})", (compared,)))
    if age.trouble or age.value is None:
        return age
    if age.value > _COMPARED_SECONDS:
        return Figure.unknown(f"the registries were last compared {age.value:.0f} s ago", age.sampled_at)
    return measure.query(
        Query(f'sum({drift}{{finding=~"{_DIFFERENT}"}})', (compared, drift)),
    )


def template_to_preview(_measure: Measure, looking: Looking) -> Figure:
    """Seconds that the last preview of a new service took until all of its checks were green.

    ``not signed`` is neither green nor red: the image of a preview that this machine built itself. That of a
    workflow, which names its image, is verified.
    """
    if not looking.previews:
        return Figure.unknown("no preview of a service is recorded")
    record = looking.previews[-1]
    try:
        seconds, ended = float(record["seconds"]), float(record["ended_at"])
        states = {check["state"] for check in record["checks"]}
        service = str(record["service"])
    except (KeyError, TypeError, ValueError):
        return Figure.unknown("the record of the preview is not complete")
    if "green" not in states or states - {"green", "not signed"}:
        return Figure.unknown(f"the preview of {service} has checks that are not green", ended)
    return Figure(seconds, ended, "", {"service": service, "checks": len(record["checks"])})


def ramp_breaches(measure: Measure, looking: Looking) -> Figure:
    """Alerts on objectives of tenants whose ramp came to its end; one that was reverted is no roll-out."""
    used = measure.sql(
        Sql(
            "SELECT nullif(count(*), 0)::float8, extract(epoch FROM max(ended_at))::float8,"
            " string_agg(DISTINCT tenant || ' ' || feature, ', '), string_agg(DISTINCT tenant, '|')"
            " FROM ramps WHERE stage = %(stage)s AND state = 'done'"
            " AND ended_at <= now() - make_interval(secs => %(ago)s)",
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


def dashboards_missing(_measure: Measure, looking: Looking) -> Figure:
    """How many of the tenants' dashboards the stack's state does not have."""
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


def burns_not_evaluated(measure: Measure, _looking: Looking) -> Figure:
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
