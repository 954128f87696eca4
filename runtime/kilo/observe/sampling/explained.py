"""What the guards of a stage do now, and why a trace was kept or dropped, from what they export.

A trace is kept by its randomness, which every service reads out of its id alike, against the threshold that a
service had when the span began. Guards export the strictest threshold of each tenant, so of a trace that did
not pass it only this is known: spans of a name that came too often were dropped, others may have been kept.
What the collector kept is evidence, and goes before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kilo.observe import metrics
from kilo.observe.collected import Span
from kilo.observe.prometheus import Prometheus
from kilo.observe.sampling.probability import SPACE, randomness_of
from kilo.observe.scope import in_namespace


@dataclass(frozen=True, slots=True)
class Sampled:
    """What is kept of one tenant's spans now. Rates are a second's, over five minutes."""

    tenant: str
    allowance: int
    """Spans a second that one service keeps, its copies together."""
    seen: float
    kept: float
    kept_ratio: float | None
    """The share that the strictest threshold keeps; ``None`` where no guard has seen a span."""
    because: str | None
    """The attribute for which it is tripped; ``None`` where it is not."""


def read_sampled(prometheus: Prometheus, namespace: str, allowances: dict[str, int]) -> list[Sampled]:
    """What is done with each tenant's spans now: those that are over their allowance first."""
    matcher = in_namespace(namespace)

    def by_tenant(query: str) -> dict[str, float]:
        return {each.labels["tenant"]: each.value for each in prometheus.query(query)}

    seen = by_tenant(f"sum by (tenant) (rate({metrics.SAMPLING_SPANS.name}{{{matcher}}}[5m]))")
    kept = by_tenant(f"sum by (tenant) (rate({metrics.SAMPLING_KEPT_SPANS.name}{{{matcher}}}[5m]))")
    ratios = by_tenant(f"min by (tenant) ({metrics.SAMPLING_KEPT_RATIO.name}{{{matcher}}})")
    tripped = {
        each.labels["tenant"]: each.labels["attribute"]
        for each in prometheus.query(f"{metrics.SAMPLING_GUARD_TRIPPED.name}{{{matcher}}} == 1")
    }
    found = [
        Sampled(
            tenant,
            allowances.get(tenant, 0),
            seen.get(tenant, 0.0),
            kept.get(tenant, 0.0),
            ratios.get(tenant),
            tripped.get(tenant),
        )
        # Spans of no tenant of the stage have an allowance of their own.
        for tenant in sorted({*allowances, *seen})
    ]
    return sorted(found, key=lambda each: (each.because is None, -each.seen, each.tenant))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a trace's spans in one service."""

    service: str
    kept: bool | None
    """``None`` where it is not known."""
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a trace was kept or dropped."""

    trace_id: str
    passes: float
    """It is kept by every service that keeps at least this share of its spans."""
    verdicts: Sequence[Verdict]


def explain(
    trace_id: str, spans: Sequence[Span], ratios: dict[str, float], weight_entry: str | None = None
) -> Explanation:
    """Explain from the spans that were kept, and from the share that each service kept at the time.

    Args:
        trace_id: 32 hexadecimal digits.
        spans: of the trace, as far as the collector has them.
        ratios: the share that each service's strictest threshold kept of the tenant's spans.
        weight_entry: ``ot`` of its tracestate, which may give it another randomness than its id.
    """
    passes = 1 - randomness_of(int(trace_id, 16), weight_entry) / SPACE
    kept: dict[str, Verdict] = {}
    for span in spans:
        if span.reason:
            kept[span.service] = Verdict(span.service, kept=True, why=_REASONS.get(span.reason, span.reason))
        elif span.service not in kept:
            stands = f", stands for {span.weight:.3g}" if span.weight else ""
            kept[span.service] = Verdict(span.service, kept=True, why=f"passed its threshold{stands}")
    for service, ratio in sorted(ratios.items()):
        if service not in kept:
            kept[service] = Verdict(service, *_by_ratio(passes, ratio))
    return Explanation(trace_id, passes, list(kept.values()))


def _by_ratio(passes: float, ratio: float) -> tuple[bool | None, str]:
    if ratio >= passes:
        return (
            None,
            f"kept {ratio:.1%}, which this trace passes; no span of it is here: it may have made none",
        )
    return False, (
        f"kept {ratio:.1%} of spans of the name that came most, and this trace needs {passes:.1%}; "
        "only failed, slow and key spans were kept beside"
    )


_REASONS = {
    "error": "kept whole since it failed",
    "slow": "kept whole since it was slow",
    "allowed": "a key span (monitoring.key_spans)",
}
