"""What changed in a stage, drawn across its graphs: a moment each, with what began.

The values of these queries are the moments themselves, as the programs say them, so a mark stands where the
change was and not at the next scrape. A promotion is seen as the processes that it starts. Left out: what a
person did and no program tells, such as a change of Grafana's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilo.observe import foreign, metrics


@dataclass(frozen=True, slots=True)
class Annotation:
    """A kind of change: its name, a query whose values are seconds since 1970, and what to say of one."""

    name: str
    query: str
    text: str


ANNOTATIONS = (
    Annotation("Deployments", f"max by (job) ({foreign.PROCESS_START.name})", "{{job}} started"),
    Annotation(
        # A step of a ramp, a feature taken back, a tenant or a limit: whatever changes the gateway's routes.
        "Ramps and routes",
        f"max({foreign.ENVOY_ROUTES_RELOADED.name}) / 1000",
        "the gateway took new routes",
    ),
    Annotation(
        "Rotations",
        f"max by (tenant) ({metrics.FLE_ROTATION_LAST_SUCCESS.name})",
        "key of {{tenant}} rotated",
    ),
)
