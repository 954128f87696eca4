"""The guard's counts as Prometheus metrics, read when they are scraped: a span pays nothing for them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kilo.observe import metrics
from kilo.observe.sampling.guard import Guard


class GuardMetrics(Collector):
    """What a guard has seen, kept and counted, by tenant."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def collect(self) -> Iterable[Metric]:
        """Give every family."""
        tripped = _gauge(metrics.SAMPLING_GUARD_TRIPPED)
        ratio = _gauge(metrics.SAMPLING_KEPT_RATIO)
        spans = _counter(metrics.SAMPLING_SPANS)
        kept = _counter(metrics.SAMPLING_KEPT_SPANS)
        overflow = _counter(metrics.SAMPLING_OVERFLOW_SPANS)
        failures = _counter(metrics.SAMPLING_FAILURES)
        failures.add_metric([], self._guard.failures)
        for tenant, state in self._guard.states().items():
            # No series while all is well: then there is no attribute to name.
            if state.tripped:
                tripped.add_metric([tenant, state.attribute], 1)
            ratio.add_metric([tenant], min(state.names.values(), default=1.0))
            spans.add_metric([tenant], state.seen)
            for reason, count in state.kept.items():
                kept.add_metric([tenant, reason], count)
            for attribute, count in state.overflow.items():
                overflow.add_metric([tenant, attribute], count)
        return [tripped, ratio, spans, kept, overflow, failures]

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on what came."""
        return []


def _gauge(metric: metrics.GaugeMetric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _counter(metric: metrics.CounterMetric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
