"""The dashboard of the sprint's goals: of each that has a series, its course beside its bound.

Left out are those that no series tells of: how long a preview took, and whether dashboards are published and
burn alerts evaluated. `kilo goals` and the page of `kilo dash` have their figures, too.
"""

from __future__ import annotations

from kilo.observe import foreign, metrics
from kilo.observe.panels import Page, Panel, quantile, since

_DIFFERENT = 'finding=~"drift|missing|missing_attestation|unreadable|unreachable|quarantined"'
_BREACHES = (
    f'{foreign.ALERTS.name}{{alertname=~"Tenant(AvailabilityBurn|LatencyBurn|Unserved|BudgetSpent)", '
    'alertstate="firing"}'
)


def _hour(metric: str, matcher: str = "") -> str:
    return f"sum(increase({metric}{f'{{{matcher}}}' if matcher else ''}[1h]))"


_CARRIED, _TAKEN = (
    _hour(metrics.OUTBOX_PUBLISHED.name),
    _hour(metrics.INGEST_EVENTS.name, 'outcome="accepted"'),
)
_ENCRYPTED = f"min by (tenant, field) ({metrics.FLE_COVERAGE.name}) == 1"
_REPEATED = _hour(metrics.CONSUMER_EVENTS.name, 'outcome="duplicate"')

GOALS_PAGE = Page(
    "goals",
    "Goals",
    [
        Panel(
            "Which share of an hour's ingest do outbox and CDC carry?",
            "percentunit",
            # Services write events of their own through the outbox, so more may leave than ingest took in.
            {"share": f"clamp_max({_CARRIED} / ({_TAKEN} > 0), 1)", "at least": "vector(0.95)"},
        ),
        Panel("Is an event lost?", "short", {"lost, must be 0": f"max({metrics.OUTBOX_LOST.name})"}),
        Panel(
            "Which share of an hour's deliveries is repeated?",
            "percentunit",
            {
                "duplicates": f"{_REPEATED} / ({_hour(metrics.CONSUMER_EVENTS.name)} > 0)"
                f" or 0 * {_hour(metrics.CONSUMER_EVENTS.name)}",
                "at most": "vector(0.001)",
            },
        ),
        Panel(
            "How many fields lie encrypted?",
            "short",
            {
                "{{tenant}}": f"count by (tenant) ({_ENCRYPTED})",
                "gold, at least": "vector(2)",
            },
        ),
        Panel(
            "When was the last rotation?",
            "s",
            {"{{tenant}}": since(metrics.FLE_ROTATION_LAST_SUCCESS.name, "tenant")},
        ),
        Panel(
            "How soon is a push mirrored?",
            "s",
            {
                "waits": f"max({metrics.MIRROR_LAG.name})",
                "took, 99 of 100": quantile(0.99, metrics.MIRROR_DURATION.name),
                "less than": "vector(300)",
            },
        ),
        Panel(
            "Where do the registries differ?",
            "short",
            {"differences, must be 0": f"sum({metrics.MIRROR_DRIFT.name}{{{_DIFFERENT}}})"},
        ),
        Panel(
            "Whose objective is breached?",
            "short",
            {
                "{{tenant}} {{alertname}}": f"count by (tenant, alertname) ({_BREACHES})",
                "all, must be 0": f"count({_BREACHES}) or vector(0)",
            },
        ),
    ],
)
