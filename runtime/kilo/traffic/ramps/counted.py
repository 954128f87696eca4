"""Asks Prometheus for what the gate decides from, as raw samples rather than rates.

``rate()`` extrapolates over gaps and misses the first value of a series that begins with a failure. So each
series is read sample by sample, beside ``up`` of the same scrapes, which tells a gateway that had nothing to
count from one that was not asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

from kilo.errors import KiloError
from kilo.observe.prometheus import Prometheus, Series
from kilo.traffic.features import next_cluster, shadow_cluster
from kilo.traffic.ramps.figures import Counts, Figures, Interval

_COLLECTOR = "usage-collector"
_TIMEOUT_SECONDS = 5.0
_LONGEST_SECONDS = 6 * 3600
_MISSED_SCRAPES = 2.5
"""More than this many intervals between two samples are a gap."""
_BEHIND_SECONDS = 5.0
"""What a scrape and its storing may take besides."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose figures are asked for."""

    tenant: str
    tier: str
    feature: str
    latency_threshold_ms: int
    shadow: bool = False
    """Whether the next version answers copies alone."""


class Counted:
    """What one Prometheus has counted of the gateways of one namespace.

    Args:
        url: its address.
        gateway: the gateway's job, which is its workload's name.
        namespace: the stage's.
    """

    def __init__(self, url: str, gateway: str = "gateway", namespace: str = "kilo") -> None:
        self._prometheus = Prometheus(url, seconds=_TIMEOUT_SECONDS, advice="")
        # The collector of usage beside each gateway is scraped under the same job.
        self._up = f'up{{job="{gateway}",namespace="{namespace}",container!="{_COLLECTOR}"}}'

    async def replicas(self) -> list[str]:
        """The operations URLs of the gateways that it scrapes now, whether they answer or not.

        Raises:
            Unreachable: it does not answer.
        """
        found = await self._ask(self._up)
        return sorted(f"http://{_instance(series)}" for series in found if _instance(series))

    async def figures(self, subject: Subject, since: float) -> Figures:
        """What is known of ``subject`` since a moment; what is not known is said in the answer."""
        now = time.time()
        window = f"[{ceil(min(now - since + 60, _LONGEST_SECONDS))}s]"
        try:
            scrapes, current = await self._ask(self._up + window), await self._ask(self._up)
            counters = await self._ask(selector(subject) + window)
            refused = await self._ask(
                "envoy_cluster_upstream_rq_pending_overflow"
                f'{{envoy_cluster_name="{next_cluster(subject.feature, subject.tier)}"}}{window}'
            )
            if subject.shadow:
                counters += await self._ask(shadow_selector(subject) + window)
        except KiloError as error:
            return Figures(trouble=str(error))
        return read(scrapes, {_instance(series) for series in current}, counters, refused, now, since)

    async def _ask(self, query: str) -> list[Series]:
        return await asyncio.to_thread(self._prometheus.series, query)


def selector(subject: Subject) -> str:
    """Select the tenant's counters of the feature, and of its histogram the one bucket that is needed."""
    names = "|".join(("requests_total", "request_duration_milliseconds_(bucket|count)"))
    # Prometheus 3 writes a whole bucket's edge with ".0", Prometheus 2 without.
    return (
        f'{{__name__=~"envoy_gateway_({names})",tenant="{subject.tenant}",feature="{subject.feature}",'
        f'le=~"|{subject.latency_threshold_ms}([.]0)?"}}'
    )


def shadow_selector(subject: Subject) -> str:
    """Select what the cluster of the tenant's copies counts."""
    cluster = shadow_cluster(subject.feature, subject.tenant)
    return (
        f'{{__name__=~"envoy_cluster_upstream_rq(_time_(bucket|count))?",envoy_cluster_name="{cluster}",'
        f'le=~"|{subject.latency_threshold_ms}([.]0)?"}}'
    )


def read(  # noqa: PLR0917
    scrapes: Sequence[Series],
    current: set[str],
    counters: Sequence[Series],
    refused: Sequence[Series],
    now: float,
    since: float,
) -> Figures:
    """Turn raw series into figures: a pure function, so that every kind of hole can be tried.

    Args:
        scrapes: ``up`` of every gateway over the window.
        current: the gateways that are scraped now.
        counters: what was selected of the tenant, over the window.
        refused: what the next version's queue refused, over the window.
        now: the present moment.
        since: what was before does not matter.
    """
    if not current:
        return Figures(trouble="Prometheus scrapes no gateway")
    up = {_instance(series): series for series in scrapes}
    steps = [later[0] - earlier[0] for each in up.values() for earlier, later in pairwise(each.samples)]
    if not steps:
        return Figures(trouble="no figures yet: each gateway was scraped once at most")
    usual = median(steps)
    for instance in sorted(current):
        known = up.get(instance)
        age = known.age(now) if known else None
        if known is None or age is None or age > usual * _MISSED_SCRAPES + _BEHIND_SECONDS:
            said = "missing" if age is None else f"{age:.0f} s old"
            return Figures(trouble=f"the figures of gateway {instance} are {said}")
        if known.samples[-1][1] != 1:
            return Figures(trouble=f"gateway {instance} could not be scraped")
    intervals: list[Interval] = []
    broken_at: float | None = None
    for instance, scraped in up.items():
        mine = [series for series in counters if _instance(series) == instance]
        values = [(_key(series), dict(series.samples)) for series in mine]
        for (start, was_up), (end, is_up) in pairwise(scraped.samples):
            if end <= since:
                continue
            if end - start > usual * _MISSED_SCRAPES or was_up != 1 or is_up != 1:
                broken_at = max(end, broken_at or 0.0)
                continue
            intervals.append(_interval(start, end, values))
    kept = (each for each in intervals if each.start >= (broken_at or 0.0))
    intervals = sorted(kept, key=lambda each: each.start)
    return Figures(intervals, None, broken_at, _last_increase(refused))


def _interval(
    start: float, end: float, values: Iterable[tuple[tuple[str, str], dict[float, float]]]
) -> Interval:
    sums: dict[str, dict[str, int]] = {
        version: dict.fromkeys(("requests", "errors", "timed", "fast"), 0) for version in ("stable", "next")
    }
    for (version, kind), samples in values:
        if version in sums and kind and end in samples:
            before, after = samples.get(start, 0.0), samples[end]
            # A counter that fell was started anew: what it has now is what was added.
            added = round(after - before if after >= before else after)
            sums[version][kind] += added
            if kind == "errors":
                sums[version]["requests"] += added
    found = {
        version: Counts(each["requests"], each["errors"], max(each["timed"] - each["fast"], 0))
        for version, each in sums.items()
    }
    return Interval(start, end, found["stable"], found["next"])


def _key(series: Series) -> tuple[str, str]:
    """The version and what is counted of it; neither where it is of no use."""
    labels = series.labels
    copies = labels["__name__"].startswith("envoy_cluster_")
    version = "next" if copies else labels.get("version", "")
    if labels["__name__"].endswith("_bucket"):
        return version, "fast"
    if labels["__name__"].endswith("_count"):
        return version, "timed"
    status = labels.get("envoy_response_code" if copies else "status", "")
    if status == "429" or not status:
        return version, ""
    return version, "errors" if status.startswith("5") else "requests"


def _last_increase(series: Iterable[Series]) -> int:
    return sum(
        max(round(each.samples[-1][1] - each.samples[-2][1]), 0) for each in series if len(each.samples) > 1
    )


def _instance(series: Series) -> str:
    return series.labels.get("instance", "")
