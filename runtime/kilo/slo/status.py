"""How objectives stand: what is promised, what is left of the budget, how fast it burns, when it is gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kilo.observe import metrics
from kilo.observe.objectives import KINDS, Kind
from kilo.observe.prometheus import Prometheus
from kilo.observe.scope import in_namespace


@dataclass(frozen=True, slots=True)
class Standing:
    """One objective of one tenant. Shares are of 1; ``None`` is what nothing was recorded of yet."""

    tenant: str
    objective: str
    target: float
    """The share of requests that is promised to be good."""
    threshold_ms: int | None
    """Of a latency objective: how fast a good request is, in milliseconds."""
    left_30d: float | None
    left_month: float | None
    burn_1h: float | None
    """How many times faster than allowed the budget is used."""
    burn_6h: float | None
    exhausted_in_seconds: float | None
    """At the pace of six hours; ``None`` where nothing burns."""


def read_standings(prometheus: Prometheus, namespace: str, tenant: str | None = None) -> list[Standing]:
    """The objectives of a tenant, or of all, those with the least budget first."""
    matcher = in_namespace(namespace) + (f', tenant="{tenant}"' if tenant else "")

    def by_tenant(record: str) -> Mapping[str, float]:
        found = prometheus.query(f"{record}{{{matcher}}}")
        return {each.labels["tenant"]: each.value for each in found if math.isfinite(each.value)}

    edges = {
        each.labels["tenant"]: int(each.value)
        for each in prometheus.query(f"{metrics.OBJECTIVE_LATENCY_EDGE.name}{{{matcher}}}")
    }
    standings: list[Standing] = []
    for kind in KINDS:
        left, month, fast, slow, gone = map(by_tenant, _records(kind))
        standings += [
            Standing(
                tenant=name,
                objective=kind.name,
                target=round(1 - budget, 9),
                threshold_ms=edges.get(name) if kind.name == "latency" else None,
                left_30d=left.get(name),
                left_month=month.get(name),
                burn_1h=fast.get(name),
                burn_6h=slow.get(name),
                exhausted_in_seconds=gone.get(name),
            )
            for name, budget in by_tenant(kind.budget).items()
        ]
    return sorted(
        standings,
        key=lambda each: (1.0 if each.left_30d is None else each.left_30d, each.tenant, each.objective),
    )


def _records(kind: Kind) -> tuple[str, str, str, str, str]:
    return kind.remaining("30d"), kind.remaining("month"), kind.burn("1h"), kind.burn("6h"), kind.exhaustion
