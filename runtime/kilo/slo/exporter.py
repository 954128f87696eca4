"""Tenants' objectives as series."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric as Family
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kilo.errors import BadInput
from kilo.observe import metrics
from kilo.slo.objectives import error_budget, read_objectives

_log = logging.getLogger(__name__)


class ObjectiveCollector(Collector):
    """Exports the file of objectives as it stands at each scrape, so that a tenant's change needs no new pod.

    A file that can't be read leaves the last one in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._promises = read_objectives(path)

    def describe(self) -> Iterable[Family]:
        """Nothing beforehand: the registry need not read the file to know that names are not taken twice."""
        return ()

    def collect(self) -> Iterator[Family]:
        """The series of every tenant."""
        try:
            self._promises = read_objectives(self._path)
        except BadInput as error:
            _log.warning("%s", error)
        budget, edge, limit = (
            GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for metric in (metrics.OBJECTIVE_BUDGET, metrics.OBJECTIVE_LATENCY_EDGE, metrics.TENANT_LIMIT)
        )
        for promise in self._promises:
            objective, threshold = promise.objective, promise.objective.latency_threshold_ms
            for tenant in promise.tenants:
                budget.add_metric((tenant, "availability"), error_budget(objective.availability_percent))
                budget.add_metric((tenant, "latency"), error_budget(objective.latency_percent))
                # Prometheus 3 writes a whole bucket's edge with ".0", Prometheus 2 without.
                edge.add_metric((tenant, f"{threshold}"), threshold)
                edge.add_metric((tenant, f"{threshold}.0"), threshold)
                limit.add_metric((tenant,), promise.requests_per_second)
        yield from (budget, edge, limit)
